"""Builds a commit from a commit and packages: build root, scripts, finish."""
