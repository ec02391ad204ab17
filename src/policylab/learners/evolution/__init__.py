"""Populations that are varied and selected: no gradients."""
