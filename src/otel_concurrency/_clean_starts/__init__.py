"""Threads and callables that start with a clean context: a table, and what matches against it."""
