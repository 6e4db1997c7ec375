"""What is promised of speed, measured: the program's own commands, each in a process of its own."""
