"""Adapters to other libraries and environments of our own."""
