"""The parts of the guard: prices, limits, accounts, access, clock, and the reader that keeps them up to date."""
