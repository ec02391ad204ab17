"""Learned environments."""
