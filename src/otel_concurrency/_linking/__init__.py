"""Policies, the origins that spans link to, rounds of periodic work, and the start of spans."""
