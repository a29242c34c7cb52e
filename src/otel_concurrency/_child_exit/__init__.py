"""What a child process must export before it ends, and forget of its parent when it begins."""
