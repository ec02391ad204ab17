"""Claims about systems that vary and select populations."""
