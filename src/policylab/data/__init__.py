"""Logged experience in and out: Minari, D4RL-style HDF5, NPZ, tables of logs, LeRobot folders and our own columns on disk."""
