"""When a provider cannot or may not serve a call: the next one in order."""
