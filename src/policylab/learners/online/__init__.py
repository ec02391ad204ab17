"""Learners that act: on-policy from rollouts, off-policy from a replay."""
