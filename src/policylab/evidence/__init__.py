"""The kinds of evidence that data (and perhaps a simulator) allow, one file each."""
