"""Servers, processes and helper functions that tests and benchmarks share."""
