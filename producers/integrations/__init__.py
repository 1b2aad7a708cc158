"""Hooks of libraries that call models: each is one file, loaded by whoever uses that library and needed by no other."""
