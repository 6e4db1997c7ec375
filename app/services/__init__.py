"""What the service does, step by step, in terms of nobody's framework."""
