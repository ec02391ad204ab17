"""Claims of systems that learn worlds."""
