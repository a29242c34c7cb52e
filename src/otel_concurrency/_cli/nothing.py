"""Does nothing: a process runs this in the place of a script that it has run too late."""
