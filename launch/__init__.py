"""Starters for runs of several processes."""
