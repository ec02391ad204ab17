"""How policies are judged: rollouts and trials, statistics of scores, off-policy estimates, what a data set is like."""
