"""Overlays: named sets of files for /usr and /etc, stored as commits and shown by the live engine."""
