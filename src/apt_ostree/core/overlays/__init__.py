"""Overlays: named sets of files over /usr and /etc, kept as commits and shown by the live engine."""
