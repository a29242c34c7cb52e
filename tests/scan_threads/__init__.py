"""Finds the threads and tasks that libraries start for themselves, and which no table names."""
