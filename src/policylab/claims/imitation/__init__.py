"""Claims about imitation."""
