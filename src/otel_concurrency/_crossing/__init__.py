"""Carrying a context to another process: as headers, and the ways in which headers travel."""
