"""Crossed factors of any size: iterative solutions and random probes instead of a dense block."""
