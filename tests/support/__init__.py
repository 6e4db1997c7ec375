"""Code that several test modules share, and the benchmarks with them."""
