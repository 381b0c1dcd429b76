"""Fault injection: faults in real training runs on the user's own file system.

Counts in how many runs the invariants held.

python -m purenoise_jax.chaos
"""
