"""Rules about limits: which bind, for which period, and how much of them is used."""
