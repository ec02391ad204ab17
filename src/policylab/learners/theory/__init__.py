"""Exact and provable methods."""
