"""Measures the performance targets: runs the program's own commands, each in its own process."""
