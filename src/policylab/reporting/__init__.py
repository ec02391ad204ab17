"""The report of a result: one self-contained page."""
