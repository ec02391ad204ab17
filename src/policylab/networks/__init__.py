"""Layers and nets that more than one room uses."""
