"""How policies are learned: one file each."""
