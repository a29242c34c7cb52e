"""What is patched in a process, by which setting, and what could not be: for ``status``."""
