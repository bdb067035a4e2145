"""Searches packages by name and summary."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """Where all terms match, in the order of the output, which is rpm-ostree's."""

    BOTH = "summary & name"
    NAME = "name"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Offer:
    """An available package. installed: its installed version, or empty."""

    name: str
    version: str
    summary: str
    installed: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """A matching package. installed: its installed version, or empty."""

    group: Group
    name: str
    version: str
    summary: str
    installed: str = ""


_PATTERN = frozenset("*?[")
#: Matches of each group that a short answer has.
_FIRST = 50


def first_of_groups(matches: Iterable[Match]) -> list[Match]:
    """Return the first matches of each group."""
    counts: Counter[Group] = Counter()
    kept = []
    for match in matches:
        counts[match.group] += 1
        if counts[match.group] <= _FIRST:
            kept.append(match)
    return kept


def find(offers: Iterable[Offer], terms: Sequence[str]) -> tuple[Match, ...]:
    """Return the packages with every term in name or summary, by group and name; case is ignored.

    terms: a pattern such as "vim*" has to match the whole name or summary.
    """
    lowered = [term.lower() for term in terms]
    matches = []
    for offer in offers:
        name, summary = offer.name.lower(), offer.summary.lower()
        if not all(_is_in(term, name) or _is_in(term, summary) for term in lowered):
            continue
        in_name = all(_is_in(term, name) for term in lowered)
        in_summary = all(_is_in(term, summary) for term in lowered)
        group = Group.BOTH if in_name == in_summary else Group.NAME if in_name else Group.SUMMARY
        matches.append(Match(group, offer.name, offer.version, offer.summary, offer.installed))
    order = list(Group)
    return tuple(sorted(matches, key=lambda match: (order.index(match.group), match.name)))


def _is_in(term: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text, term) if _PATTERN.intersection(term) else term in text
