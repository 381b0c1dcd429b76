"""Torments real training runs on the user's own file system, and counts which promises held.

python -m purenoise_jax.chaos
"""
