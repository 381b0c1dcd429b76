"""Reads the program that XLA compiles for a GPU, on a machine without one."""
