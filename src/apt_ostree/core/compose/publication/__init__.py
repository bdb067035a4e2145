"""Publishes commits of a repository for machines to pull, in a directory that any web server can serve."""
