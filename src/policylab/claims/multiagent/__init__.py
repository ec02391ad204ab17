"""Claims about several agents."""
