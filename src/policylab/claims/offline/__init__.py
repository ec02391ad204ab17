"""Claims of systems that learn from logged data."""
