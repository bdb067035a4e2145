"""What a publication (`compose publish`) keeps: the commits of each ref, the static deltas, and its record.

The record is a file in the published directory. By it the directory is known for one, and an interrupted
publication for one that is to be completed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue

#: Name of the record in the published directory.
RECORD = "publication.json"
#: Static deltas are made from so many commits before the newest one of a ref.
DELTAS_FROM = 3
#: Static deltas to so many of the newest commits of a ref stay: machines may be pulling the one before.
DELTAS_TO = 2
_DAY = 86400

#: A static delta: the commit that it starts from, and the one that it leads to.
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a static delta is judged by: its bytes, and those of the objects that it replaces."""

    bytes: int
    objects: int

    @property
    def saves(self) -> bool:
        """Return whether a machine downloads less with it."""
        return self.bytes < self.objects


@dataclass(frozen=True, slots=True)
class Record:
    """What is published.

    finished: the last publication came to its end.
    refs: ref -> its commits, the newest first.
    deltas: "FROM-TO" -> sizes of each static delta that was made, those that were thrown away included.
    """

    finished: bool = False
    refs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deltas: Mapping[str, Sizes] = field(default_factory=dict)

    def sizes(self, pair: Pair) -> Sizes | None:
        """Return the sizes of a static delta that was made once."""
        return self.deltas.get("-".join(pair))

    def to_text(self) -> str:
        """Return the record as the text of its file."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def read_record(text: str) -> Record:
    """Return the record of a file's text; UsageError for another file's."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{RECORD}: {error}") from error
    return jsonvalue.read(Record, value, name=RECORD)


def history(*parts: Iterable[str]) -> tuple[str, ...]:
    """Return the commits of several lists, each once, in their order."""
    return tuple(dict.fromkeys(commit for part in parts for commit in part))


def kept(times: Mapping[str, int], number: int | None, days: int | None, now: float) -> tuple[str, ...]:
    """Return the commits of a ref that stay, the newest first.

    A commit stays if it is one of the newest `number`, or not older than `days`. The newest stays in any
    case, and all do without a limit.

    times: commit -> its time in seconds since 1970, the newest first.
    """
    if number is None and days is None:
        return tuple(times)
    oldest = now - days * _DAY if days is not None else float("inf")
    return tuple(
        commit for n, (commit, time) in enumerate(times.items()) if n < (number or 1) or time >= oldest
    )


def new_deltas(commits: Sequence[str], there: frozenset[Pair], record: Record) -> tuple[Pair, ...]:
    """Return the static deltas to make to the newest commit of a ref.

    commits: of the ref, the newest first.
    there: the static deltas that there are.
    """
    pairs = [(old, commits[0]) for old in commits[1 : DELTAS_FROM + 1]]
    sizes = {pair: record.sizes(pair) for pair in pairs}
    return tuple(pair for pair, size in sizes.items() if size is None or (size.saves and pair not in there))


def old_deltas(there: frozenset[Pair], newest: Iterable[Sequence[str]], record: Record) -> frozenset[Pair]:
    """Return the static deltas that stay: those that save bytes, and lead to one of the newest commits.

    newest: of each ref that has static deltas, its commits, the newest first.
    """
    ends = {commit for commits in newest for commit in commits[:DELTAS_TO]}
    return frozenset(
        pair for pair in there if pair[1] in ends and (size := record.sizes(pair)) and size.saves
    )
