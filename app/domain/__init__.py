"""What a verification is and what is decided about it: plain values and pure functions, no input and no output."""
