"""PRICE: bytes become priced columns."""
