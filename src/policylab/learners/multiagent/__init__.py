"""Learning among other agents."""
