"""Claims about exact and provable methods."""
