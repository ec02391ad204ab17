"""Claims about learners that act."""
