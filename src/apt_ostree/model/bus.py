"""The names of the service on the system bus."""

from __future__ import annotations

NAME = "org.debian.aptostree1"
PATH = "/org/debian/aptostree1"
QUERIES = "org.debian.aptostree1.Queries"
