"""Learning to answer from rewards that are checked."""
