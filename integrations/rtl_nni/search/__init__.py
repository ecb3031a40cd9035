"""Searches over adaptive tickets: the space, a trial, the assessor, and whole experiments."""
