"""What is unusual for a key, an address or an organisation: pure, over arrays, held against its own past."""
