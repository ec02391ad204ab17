"""Learning from logged experience with rewards."""
