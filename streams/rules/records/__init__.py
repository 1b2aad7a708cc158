"""Rules about records of usage.priced: many rows as one, and back."""
