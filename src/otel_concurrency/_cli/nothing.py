"""Does nothing: a process runs this instead of a script that was removed before it could run."""
