"""The record of what was done, asked for and denied: its entries, and the chain that shows a change of them.

Values only. `core.operation` makes records, `system.auditlog` keeps them, and `core.history` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from apt_ostree.model.caller import Caller

_LONGEST_ARGUMENTS = 16_384
#: Verbs that free space or go back: a record that cannot be written must not be in their way.
UNHINDERED = frozenset(
    {
        "cleanup",
        "confirm",
        "overlay-cleanup",
        "recover",
        "rollback",
        "rollback-live",
        "uninstall",
        "unlock-discard",
        "unpin",
    }
)


class Kind(StrEnum):
    """What a record tells."""

    BEGAN = "began"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DENIED = "denied"
    INTERRUPTED = "interrupted"
    CONFIRMED = "confirmed"
    UNDONE = "undone"  # by itself: a check failed, nobody confirmed it, or it was interrupted
    MARKED = "marked"  # a boot or a live change has failed, which is remembered of its tree
    RETURNED = "returned"  # a deployment is booted because another one has failed
    SECURITY = "security"
    PRUNED = "pruned"


#: Kinds that end an operation.
ENDS = frozenset({Kind.DONE, Kind.REFUSED, Kind.FAILED, Kind.CANCELLED, Kind.DENIED, Kind.INTERRUPTED})

#: The MESSAGE_ID of each kind in the systemd journal; data/catalog/apt-ostree.catalog explains them.
MESSAGE_IDS: Mapping[Kind, str] = {
    Kind.BEGAN: "84a89ca4e22f488c9abb67592bb55bf4",
    Kind.DONE: "7e1e4c1544b94188be95265c84d34449",
    Kind.REFUSED: "0dc62660b17040d9a863bdd15dd61e1e",
    Kind.FAILED: "f92d07af87294c4e890031bcbcde6a50",
    Kind.CANCELLED: "2c52c71797fa456d82f47fe1f270b45a",
    Kind.DENIED: "d253919a8b2f45d4af38f6cb662f4e21",
    Kind.INTERRUPTED: "63bb0b5967f845e98720fd230a3cf089",
    Kind.CONFIRMED: "6f07ae91ca4c4d3288866e705125463f",
    Kind.UNDONE: "91e7d42b29a74776b0499a447a35582f",
    Kind.MARKED: "aa8455bd42224203aa54b78ab7303608",
    Kind.RETURNED: "981e0d74bfa941f98f82e7e3d2418b07",
    Kind.SECURITY: "fa24f30742c74544bcb58fb41df2c6df",
    Kind.PRUNED: "66e522c6c80e4fba8350e4b83a2a4952",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record.

    operation: number of the operation, as in the history; 0: the record is about none.
    time: microseconds since 1970; of an end, `began` is that of the operation's begin.
    title: the command as the history shows it.
    via: "bus" for a client of the service, "direct" for a worker of the caller's own.
    arguments: what the request has besides the defaults (`Request.given`), if that is not too long.
    request, plan: digests (`digest_of`) of the request and of the last plan that was shown; "" for none.
    before, after: the commit that the next boot started before and after; "" if not known.
    source, target: the commits between which the running system was changed, or was to be.
    generation: that the operation made.
    changed, next_boot: see Result.
    message: what is told; of an error its message.
    reasons: of an error its details.
    packages: what the plan adds, removes and changes: "NAME VERSION", or "NAME OLD -> NEW".
    further: fields of a kind, which must not have the name of one that all have (`journal_fields`).
    """

    kind: Kind
    operation: int = 0
    time: int = 0
    began: int = 0
    boot_id: str = ""
    verb: str = ""
    title: str = ""
    caller: Caller
    via: str = "direct"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    request: str = ""
    plan: str = ""
    before: str = ""
    after: str = ""
    source: str = ""
    target: str = ""
    generation: int | None = None
    changed: bool | None = None
    next_boot: bool = False
    exit_code: int | None = None
    message: str = ""
    reasons: tuple[str, ...] = ()
    packages: Mapping[str, Sequence[str]] = field(default_factory=dict)
    further: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_text(cls, text: str) -> Record:
        """Read a record, without what a newer version has added.

        Raises ValueError, KeyError or TypeError for another text, and for a kind of a newer version.
        """
        value = json.loads(text)
        reads = {
            "kind": Kind(value["kind"]),
            "caller": Caller(**_fields_of(Caller, value["caller"])),
            "reasons": tuple(value["reasons"]),
        }
        return cls(**{**_fields_of(cls, value), **reads})


def _fields_of(cls: type[Record | Caller], value: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(cls)}
    return {name: item for name, item in value.items() if name in names}


@dataclass(frozen=True, slots=True)
class Link:
    """A record as it is kept.

    number: its place in the chain, from 1.
    text: canonical JSON of the record, its number and the digest of the record before (`chained`).
    digest: of the text, in hexadecimal.
    """

    number: int
    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class Head:
    """The number and the digest of a record, as kept elsewhere than in the chain."""

    number: int = 0
    digest: str = ""


def canonical(value: Any) -> str:
    """Return the JSON text of a value that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))  # ASCII: file names may be no Unicode


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value, such as a plan, in hexadecimal."""
    return _sha256(canonical(value))


def _sha256(text: str) -> str:
    import hashlib  # a boot, which asks for a number only, does not wait for it

    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def chained(record: Record, head: Head) -> Link:
    """Return a record as the next one after `head`."""
    number = head.number + 1
    text = canonical({**asdict(record), "number": number, "previous": head.digest})
    return Link(number, text, _sha256(text))


def arguments_of(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments for a record; without long ones, with which a user could fill the disk."""
    return given if len(canonical(given)) <= _LONGEST_ARGUMENTS else {}


def packages_of(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what a plan that was shown does to packages, see Record."""
    packages: Mapping[str, Any] = plan.get("packages") or {}
    changed = [*packages.get("changed", ()), *plan.get("upgrade", ()), *plan.get("downgrade", ())]
    rows = {
        "added": [f"{p['name']} {p['version']}" for p in packages.get("added", ())]
        + [f"{step['name']} {step['new']}" for step in plan.get("install", ())],
        "removed": [f"{p['name']} {p['version']}" for p in packages.get("removed", ())]
        + [f"{step['name']} {step['old']}" for step in plan.get("remove", ())],
        "changed": [f"{p['name']} {p['old']} -> {p['new']}" for p in changed],
    }
    return {name: row for name, row in rows.items() if row}


def summary(record: Record) -> str:
    """Return a record as a line for the systemd journal."""
    who = record.caller.user
    if record.kind is Kind.BEGAN:
        return f"{record.title}: begun by {who}"
    told = f": {record.message}" if record.message else ""
    if record.kind is Kind.PRUNED:
        return f"the history was shortened{told}"
    outcome = "nothing to do" if record.kind is Kind.DONE and record.changed is False else record.kind
    return f"{record.title} by {who}: {outcome}{told}"


def journal_fields(record: Record, link: Link | None) -> dict[str, str]:
    """Return the fields of a record's entry in the systemd journal; link: None if it could not be kept."""
    caller = record.caller
    values: dict[str, Any] = {
        "MESSAGE_ID": MESSAGE_IDS[record.kind],
        "APT_OSTREE_KIND": record.kind,
        "APT_OSTREE_OPERATION": record.operation or "",
        "APT_OSTREE_RECORD": link.number if link else "",
        "APT_OSTREE_DIGEST": link.digest if link else "",
        "APT_OSTREE_VERB": record.verb,
        "APT_OSTREE_TITLE": record.title,
        "APT_OSTREE_ARGUMENTS": canonical(record.arguments) if record.arguments else "",
        "APT_OSTREE_CALLER": caller.user,
        "APT_OSTREE_CALLER_UID": caller.uid,
        "APT_OSTREE_LOGIN_UID": "" if caller.login_uid is None else caller.login_uid,
        "APT_OSTREE_CALLER_UNIT": caller.unit,
        "APT_OSTREE_SESSION": caller.session,
        "APT_OSTREE_TTY": caller.tty,
        "APT_OSTREE_REMOTE_HOST": caller.remote,
        "APT_OSTREE_VIA": record.via,
        "APT_OSTREE_REQUEST_DIGEST": record.request,
        "APT_OSTREE_PLAN_DIGEST": record.plan,
        "APT_OSTREE_BEFORE": record.before,
        "APT_OSTREE_AFTER": record.after,
        "APT_OSTREE_GENERATION": "" if record.generation is None else record.generation,
        "APT_OSTREE_EXIT_CODE": "" if record.exit_code is None else record.exit_code,
        "APT_OSTREE_REASON": "; ".join((record.message, *record.reasons)) if record.message else "",
    }
    values = {f"APT_OSTREE_{name.upper()}": value for name, value in record.further.items()} | values
    return {name: str(value) for name, value in values.items() if value != ""}


# --- verification


class Fault(StrEnum):
    """What is wrong with a chain."""

    UNREADABLE = "unreadable"
    CHANGED = "changed"
    RENUMBERED = "renumbered"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    INSERTED = "inserted"
    REMOVED = "removed"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"
    NO_HEAD = "no head"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the chain. number: of the first record that it is about."""

    fault: Fault
    number: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the problem as a JSON object."""
        return asdict(self)


def verify(
    links: Sequence[Link], head: Head | None, journal: Mapping[int, frozenset[str]] | None = None
) -> tuple[Problem, ...]:
    """Return what is wrong with a chain, in its order.

    links: in the order in which they are kept.
    head: of the file beside the records; None if it is missing or cannot be read.
    journal: record -> digests that the systemd journal has of it.
    """
    problems = [*_within(links), *_against_head(links, head), *_against_journal(links, head, journal or {})]
    return tuple(dict.fromkeys(problems))


def _within(links: Sequence[Link]) -> Iterator[Problem]:
    present = {link.number for link in links}
    seen: set[int] = set()
    before = Link(0, "", "")
    for place, link in enumerate(links):
        fault = _own_fault(link)
        if fault:
            yield fault
        number = link.number
        expected = before.number + 1
        if number in seen:
            yield Problem(Fault.DUPLICATED, number, f"there are two records {number}")
            continue
        seen.add(number)
        if number < before.number or (number > expected and expected in present and place):
            yield Problem(Fault.REORDERED, number, f"record {number} is not in its place")
        elif number > expected and place:
            yield Problem(Fault.REMOVED, expected, f"{_records(expected, number - 1)} removed")
        elif place == 0 and (number > 1 or _previous(link)):
            yield from _start(links)
        elif place and not fault and _previous(link) != before.digest:
            text = f"record {number} does not follow record {before.number}: one of them was put in its place"
            yield Problem(Fault.INSERTED, number, text)
        before = link


def _own_fault(link: Link) -> Problem | None:
    number = link.number
    if _sha256(link.text) != link.digest:
        return Problem(Fault.CHANGED, number, f"record {number} was changed")
    try:
        value = json.loads(link.text)
        own, previous = value["number"], value["previous"]
    except (ValueError, KeyError, TypeError) as error:
        return Problem(Fault.UNREADABLE, number, f"record {number} cannot be read: {error}")
    if canonical(value) != link.text or not isinstance(previous, str):
        return Problem(Fault.CHANGED, number, f"record {number} was written by another program")
    if own != number:
        return Problem(Fault.RENUMBERED, number, f"record {number} has the number {own} in its text")
    return None


def _previous(link: Link) -> str:
    try:
        return str(json.loads(link.text)["previous"])
    except (ValueError, KeyError, TypeError):
        return ""


def _start(links: Sequence[Link]) -> Iterator[Problem]:
    """Yield what is wrong if the first record is not the first ever: a record of pruning has to say so."""
    first = links[0]
    last = first.number - 1
    pruned = [further for link in links if (further := _pruned(link))]
    if pruned and pruned[-1] == (str(last), _previous(first)):
        return
    yield Problem(Fault.REMOVED, 1, f"{_records(1, last)} removed, which no record of pruning tells")


def _pruned(link: Link) -> tuple[str, str] | None:
    """Return number and digest of the last record that was pruned, of a record of that."""
    try:
        record = Record.from_text(link.text)
    except (ValueError, KeyError, TypeError):
        return None
    if record.kind is not Kind.PRUNED:
        return None
    return record.further.get("through", ""), record.further.get("through_digest", "")


def _against_head(links: Sequence[Link], head: Head | None) -> Iterator[Problem]:
    last = links[-1].number if links else 0
    if head is None:
        if links:
            yield Problem(Fault.NO_HEAD, last, "the file with the last record's number is missing or damaged")
    elif head.number > max((link.number for link in links), default=0):
        yield Problem(Fault.TRUNCATED, last + 1, f"{_records(last + 1, head.number)} removed from the end")
    elif head.number and head.digest not in {link.digest for link in links if link.number == head.number}:
        text = f"record {head.number} is not the one that was written: it or earlier ones were rewritten"
        yield Problem(Fault.REWRITTEN, head.number, text)


def _against_journal(
    links: Sequence[Link], head: Head | None, journal: Mapping[int, frozenset[str]]
) -> Iterator[Problem]:
    digests = {link.number: link.digest for link in links}
    for number in sorted(journal):
        if number in digests and digests[number] not in journal[number]:
            text = f"record {number} is not the one that the systemd journal tells of"
            yield Problem(Fault.REWRITTEN, number, text)
    last, told = max(digests, default=0), max(journal, default=0)
    if told > max(last, head.number if head else 0):
        text = f"{_records(last + 1, told)} removed from the end; the systemd journal tells of them"
        yield Problem(Fault.TRUNCATED, last + 1, text)


def _records(first: int, last: int) -> str:
    return f"record {first} was" if first >= last else f"records {first} to {last} were"
