"""Runs the tests of others without the library and with it, and compares them one by one.

What ``python tests/cpython`` and ``python tests/neighbours`` have in common.
"""
