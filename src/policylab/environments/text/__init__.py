"""Problems in words whose answers can be checked: generated from a seed, of any difficulty, split so that no instance is shared."""
