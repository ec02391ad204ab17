"""Claims of systems that learn from preferences."""
