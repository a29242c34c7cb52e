"""Policies, the origins that spans link to, rounds of periodic work, and where a span starts."""
