"""What was seen in a program, as data and as words. Imports nothing else of the library."""
