"""Learners of worlds."""
