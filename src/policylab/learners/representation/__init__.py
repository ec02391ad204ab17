"""Learners of representations."""
