"""The conformance suite: what the rest of the house relies on, checked on any implementation of a noun; one file per noun."""
