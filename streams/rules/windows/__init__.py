"""Rules about windows: the fold of one partition and all that it remembers."""
