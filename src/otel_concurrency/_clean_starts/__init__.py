"""Threads and callables that start with an empty context: a table, and code that matches it."""
