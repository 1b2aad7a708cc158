"""Answers of providers become usage: one module a provider family."""
