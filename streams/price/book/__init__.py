"""The price book: genai-prices and our override layer compiled to one flat table of integer rates."""
