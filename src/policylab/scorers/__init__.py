"""Reward models, critics, verifiers and judges."""
