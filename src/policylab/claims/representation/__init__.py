"""Claims about representations."""
