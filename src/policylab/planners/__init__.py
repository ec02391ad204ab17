"""Planners: policies that look ahead in an environment, real or learned, before they act."""
