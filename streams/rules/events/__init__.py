"""Rules about events: from bytes to columns, and what makes one valid."""
