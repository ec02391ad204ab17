"""Learning from preferences between answers, and from answers that were rated."""
