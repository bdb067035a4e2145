"""Searching packages by name and summary: which match, and in which group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """Where all terms were found; the order is the output's, as in rpm-ostree."""

    BOTH = "summary & name"
    NAME = "name"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Offer:
    """A package that may be installed; installed: the version that is, or empty."""

    name: str
    version: str
    summary: str
    installed: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """A package that was found."""

    group: Group
    name: str
    version: str
    summary: str
    installed: str = ""


def find(offers: Iterable[Offer], terms: Sequence[str]) -> tuple[Match, ...]:
    """Return the packages that hold every term in name or summary, by group and name; case is ignored."""
    words = [term.lower() for term in terms]
    found = []
    for offer in offers:
        name, summary = offer.name.lower(), offer.summary.lower()
        if not all(word in name or word in summary for word in words):
            continue
        in_name = all(word in name for word in words)
        in_summary = all(word in summary for word in words)
        group = Group.BOTH if in_name == in_summary else Group.NAME if in_name else Group.SUMMARY
        found.append(Match(group, offer.name, offer.version, offer.summary, offer.installed))
    order = list(Group)
    return tuple(sorted(found, key=lambda match: (order.index(match.group), match.name)))
