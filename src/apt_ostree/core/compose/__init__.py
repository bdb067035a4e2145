"""Composes a tree from a treefile."""
