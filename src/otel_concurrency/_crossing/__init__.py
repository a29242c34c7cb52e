"""What leaves the process: a context as headers, and the ways in which these travel."""
