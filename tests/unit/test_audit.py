"""Records of operations: their chain, what tampering with it shows, and their text in the catalog."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.model import audit
from apt_ostree.model.audit import Fault, Head, Kind, Link, Problem, Record
from apt_ostree.model.caller import Caller

ROOT = Path(__file__).resolve().parents[2]
OP = Caller(1000, 1000, "op", "session-3.scope", "3", "pts/0", "192.0.2.7")
COUNT = 12


def record(number: int = 1, **further: object) -> Record:
    kinds = (Kind.BEGAN, Kind.DONE)
    given = {
        "kind": kinds[(number - 1) % 2],
        "operation": (number + 1) // 2,
        "time": 1_700_000_000_000_000 + number,
        "boot_id": "b",
        "verb": "install",
        "title": f"install p{number}",
        "caller": OP,
        "message": "m",
        "packages": {"added": ["p 1"]},
    }
    return Record(**{**given, **further})


def chain(count: int = COUNT, head: Head = Head()) -> list[Link]:  # noqa: B008  # frozen
    links: list[Link] = []
    for number in range(1, count + 1):
        links.append(audit.chained(record(number), head))
        head = Head(links[-1].number, links[-1].digest)
    return links


def head_of(links: list[Link]) -> Head:
    return Head(links[-1].number, links[-1].digest)


def journal_of(links: list[Link]) -> dict[int, frozenset[str]]:
    return {link.number: frozenset({link.digest}) for link in links}


def edited(link: Link, *, digest: bool = False, **values: object) -> Link:
    """Change fields of a record; digest: also its digest, as one does who knows how it is made."""
    text = audit.canonical({**json.loads(link.text), **values})
    return Link(link.number, text, audit.digest_of(json.loads(text)) if digest else link.digest)


def rewritten(links: list[Link], place: int, **values: object) -> list[Link]:
    """Change a record, and make all digests from there on again."""
    kept, head = links[:place], Head(links[place - 1].number, links[place - 1].digest)
    for link in links[place:]:
        old = replace(Record.from_text(link.text), **(values if link is links[place] else {}))
        kept.append(audit.chained(old, head))
        head = head_of(kept)
    return kept


def pruned(links: list[Link], through: int, /, **wrong: str) -> list[Link]:
    further = {"through": str(through), "through_digest": links[through - 1].digest, **wrong}
    told = record(1, kind=Kind.PRUNED, operation=0, further=further)
    return [*links[through:], audit.chained(told, head_of(links))]


# --- a chain as it was written


def test_a_record_survives_the_text():
    link = audit.chained(record(2, reasons=("a", "b"), generation=7, further={"x": "ü"}), Head(4, "d"))
    assert link.number == 5 and json.loads(link.text)["previous"] == "d"
    assert Record.from_text(link.text) == record(2, reasons=("a", "b"), generation=7, further={"x": "ü"})


@pytest.mark.parametrize("count", [0, 1, 2, COUNT])
def test_nothing_is_wrong_with_what_was_written(count):
    links = chain(count)
    head = head_of(links) if links else Head()
    assert audit.verify(links, head, journal_of(links)) == ()


def test_a_newer_version_may_have_further_kinds_and_fields():
    links = chain(3)
    newer = {
        **json.loads(links[2].text),
        "kind": "approved",
        "number": 4,
        "previous": links[2].digest,
        "x": 1,
    }
    text = audit.canonical(newer)
    links.append(Link(4, text, audit.digest_of(newer)))
    assert audit.verify(links, head_of(links)) == ()
    further = {**json.loads(links[0].text), "x": 1, "caller": _caller(x=1)}
    assert Record.from_text(audit.canonical(further)) == record(1)


def test_the_head_may_be_behind_after_a_crash():
    links = chain()
    assert audit.verify(links, head_of(links[:-1]), journal_of(links)) == ()


@pytest.mark.parametrize("through", [1, 5, COUNT - 1])
def test_what_was_pruned_is_told_by_a_record(through):
    links = chain()
    shorter = pruned(links, through)
    assert audit.verify(shorter, head_of(shorter), journal_of([*links, shorter[-1]])) == ()
    again = pruned([*links, shorter[-1]], COUNT)
    assert audit.verify(again, head_of(again)) == ()


def test_the_journal_may_have_less_or_more_of_a_number():
    links = chain()
    told = {number: digests | {"other"} for number, digests in journal_of(links[3:5]).items()}
    assert audit.verify(links, head_of(links), told) == ()


# --- tampering: (what is done to the links, fault, number of the first record it is about)

Tampering = Callable[[list[Link]], list[Link]]


def _swap(links: list[Link], one: int, two: int) -> list[Link]:
    swapped = list(links)
    swapped[one], swapped[two] = swapped[two], swapped[one]
    return swapped


def _put(links: list[Link], place: int, link: Link) -> list[Link]:
    return [*links[:place], link, *links[place + 1 :]]


def _inserted(links: list[Link]) -> list[Link]:
    """Put a record in between and number the later ones anew, digests untouched."""
    new = audit.chained(record(5, title="nothing"), head_of(links[:5]))
    return [*links[:5], new, *(replace(link, number=link.number + 1) for link in links[5:])]


def _renumbered_after_removal(links: list[Link]) -> list[Link]:
    """Remove a record and close the gap."""
    return [*links[:5], *(replace(link, number=link.number - 1) for link in links[6:])]


def _replaced_alone(links: list[Link]) -> list[Link]:
    """Change a record with its own digest made again, but not the later ones."""
    return _put(links, 5, edited(links[5], digest=True, title="install other"))


def _caller(**values: object) -> dict[str, object]:
    return {**json.loads(chain(1)[0].text)["caller"], **values}


TAMPERINGS: dict[str, tuple[Tampering, Fault, int]] = {
    "another user": (lambda c: _put(c, 5, edited(c[5], caller=_caller(user="x"))), Fault.CHANGED, 6),
    "another uid": (lambda c: _put(c, 5, edited(c[5], caller=_caller(uid=0))), Fault.CHANGED, 6),
    "another host": (lambda c: _put(c, 5, edited(c[5], caller=_caller(remote=""))), Fault.CHANGED, 6),
    "another time": (lambda c: _put(c, 5, edited(c[5], time=1)), Fault.CHANGED, 6),
    "another title": (lambda c: _put(c, 5, edited(c[5], title="x")), Fault.CHANGED, 6),
    "another kind": (lambda c: _put(c, 5, edited(c[5], kind="refused")), Fault.CHANGED, 6),
    "another message": (lambda c: _put(c, 5, edited(c[5], message="")), Fault.CHANGED, 6),
    "other packages": (lambda c: _put(c, 5, edited(c[5], packages={})), Fault.CHANGED, 6),
    "another operation": (lambda c: _put(c, 5, edited(c[5], operation=1)), Fault.CHANGED, 6),
    "another digest": (lambda c: _put(c, 5, replace(c[5], digest="0" * 64)), Fault.CHANGED, 6),
    "another previous": (lambda c: _put(c, 5, edited(c[5], digest=True, previous="0")), Fault.INSERTED, 6),
    "the text of another": (lambda c: _put(c, 5, replace(c[6], number=6)), Fault.RENUMBERED, 6),
    "spaces in the text": (
        lambda c: _put(c, 5, Link(6, c[5].text + " ", audit._sha256(c[5].text + " "))),
        Fault.CHANGED,
        6,
    ),
    "no JSON": (lambda c: _put(c, 5, Link(6, "{", audit._sha256("{"))), Fault.UNREADABLE, 6),
    "a kind that is none": (
        lambda c: _put(c, 5, edited(c[5], digest=True, kind="x")),
        Fault.INSERTED,
        7,
    ),
    "changed with its digest": (_replaced_alone, Fault.INSERTED, 7),
    "the first removed": (lambda c: c[1:], Fault.REMOVED, 1),
    "one removed": (lambda c: [*c[:5], *c[6:]], Fault.REMOVED, 6),
    "several removed": (lambda c: [*c[:3], *c[8:]], Fault.REMOVED, 4),
    "removed and the gap closed": (_renumbered_after_removal, Fault.RENUMBERED, 6),
    "two swapped": (lambda c: _swap(c, 4, 5), Fault.REORDERED, 6),
    "the order turned": (lambda c: c[::-1], Fault.REORDERED, 11),
    "one inserted": (_inserted, Fault.RENUMBERED, 7),
    "one twice": (lambda c: [*c[:6], *c[5:]], Fault.DUPLICATED, 6),
    "the last removed": (lambda c: c[:-1], Fault.TRUNCATED, 12),
    "the end removed": (lambda c: c[:4], Fault.TRUNCATED, 5),
    "all removed": (lambda _: [], Fault.TRUNCATED, 1),
    "all digests made again": (lambda c: rewritten(c, 5, title="x"), Fault.REWRITTEN, 6),
    "the last rewritten": (lambda c: rewritten(c, 11, title="x"), Fault.REWRITTEN, 12),
    "another chain": (lambda _: rewritten(chain(), 1, boot_id="c"), Fault.REWRITTEN, 2),
    "pruned without a record": (lambda c: c[4:], Fault.REMOVED, 1),
    "the digest of pruning forged": (lambda c: pruned(c, 4, through_digest="0"), Fault.REMOVED, 1),
    "the number of pruning forged": (lambda c: pruned(c, 4, through="3"), Fault.REMOVED, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_shows(name):
    tamper, fault, number = TAMPERINGS[name]
    links = chain()
    problems = audit.verify(tamper(list(links)), head_of(links), journal_of(links))
    assert (fault, number) in {(problem.fault, problem.number) for problem in problems}, problems
    assert all(problem.text for problem in problems)


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_with_records_and_head_together_shows_in_the_journal_or_the_chain(name):
    links = chain()
    after = TAMPERINGS[name][0](list(links))
    assert audit.verify(after, head_of(after) if after else None, journal_of(links))


@pytest.mark.parametrize("head", [None, Head(3, "0" * 64), Head(COUNT + 3, "0" * 64)])
def test_tampering_with_the_head_shows(head):
    links = chain()
    assert audit.verify(links, head)


def test_a_rewrite_of_records_head_and_journal_does_not_show():
    """As docs/audit.md says: who can write all three can write them anew."""
    after = rewritten(chain(), 5, title="x")
    assert audit.verify(after, head_of(after), journal_of(after)) == ()


def test_one_removed_record_is_one_problem():
    links = chain()
    assert audit.verify([*links[:5], *links[6:]], head_of(links), journal_of(links)) == (
        Problem(Fault.REMOVED, 6, "record 6 was removed"),
    )


# --- the systemd journal


def catalog() -> dict[str, str]:
    text = (ROOT / "data/catalog/apt-ostree.catalog").read_text()
    return dict(re.findall(r"^-- ([0-9a-f]{32})\n(.*?)(?=^-- |\Z)", text, re.MULTILINE | re.DOTALL))


def test_each_kind_has_a_text_in_the_catalog():
    assert len({*audit.MESSAGE_IDS.values()}) == len(Kind)
    assert catalog().keys() == {*audit.MESSAGE_IDS.values()}


def test_the_catalog_names_fields_that_there_are():
    given = {
        "message": "m",
        "generation": 1,
        "exit_code": 1,
        "before": "b",
        "after": "a",
        "request": "r",
        "plan": "p",
    }
    link = chain(1)[0]
    fields = audit.journal_fields(record(**given), link)
    for text in catalog().values():
        assert re.search(r"^Subject: \S", text) and "Defined-By: apt-ostree\n" in text
        assert {*re.findall(r"@([A-Z_]+)@", text)} <= fields.keys()
    described = (ROOT / "docs/audit.md").read_text()
    assert {name for name in fields if f"`{name}`" not in described} == set()
    assert {one for one in audit.MESSAGE_IDS.values() if one not in described} == set()


def test_fields_without_a_value_are_left_out():
    fields = audit.journal_fields(Record(kind=Kind.DENIED, caller=Caller(0, None, "root", "")), None)
    assert set(fields) == {
        "MESSAGE_ID",
        "APT_OSTREE_KIND",
        "APT_OSTREE_CALLER",
        "APT_OSTREE_CALLER_UID",
        "APT_OSTREE_VIA",
    }


def test_what_plans_do_to_packages():
    step = {"name": "a", "old": "1", "new": "2"}
    assert audit.packages_of({"install": [step], "upgrade": [step], "remove": [step]}) == {
        "added": ["a 2"], "changed": ["a 1 -> 2"], "removed": ["a 1"],
    }  # fmt: skip
    package = {"name": "b", "version": "3"}
    assert audit.packages_of({"packages": {"added": [package], "removed": [], "changed": [step]}}) == {
        "added": ["b 3"], "changed": ["a 1 -> 2"],
    }  # fmt: skip
    assert audit.packages_of({"before": [], "after": []}) == {}
