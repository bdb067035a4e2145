"""The rollback policy: when a boot has failed, where it leads, what is marked, and counted boot entries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.bootcounting import Counted, counter_of, given_up, root_of
from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.origin import Origin
from apt_ostree.model.package import Package
from apt_ostree.model.verdict import (
    BootPolicy,
    Facts,
    Mark,
    Memory,
    Return,
    Way,
    find,
    format_memory,
    identity_of,
    judge,
    judged,
    marked,
    parse_memory,
    unmarked,
    way_back,
)

MARK = Mark("one", Way.BOOT, "c1", 1_700_000_000.0, "a check", ("quiet",))


def deployment(index: int, name: str, *, booted: bool = False, osname: str = "debian") -> Deployment:
    path = f"ostree/deploy/{osname}/deploy/{name}.0"
    return Deployment(index, osname, name, 0, path, Origin(), booted, False, False, "none")


def deployments(order: str, booted: str) -> Deployments:
    return Deployments(tuple(deployment(i, name, booted=name == booted) for i, name in enumerate(order)))


# --- the judgement


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts(), ""),
        (Facts(well=frozenset()), ""),
        (Facts(late=600.0), "it did not come to its end in 600 seconds"),
        (Facts(late=600.0, complete=False), "it did not come to its end in 600 seconds"),
        (Facts(complete=False), "boot-complete.target was not reached"),
        (Facts(check="cannot pass x"), "cannot pass x"),
        (Facts(failed=frozenset({"a.service"})), ""),  # nobody knows which are usual
        (
            Facts(failed=frozenset({"a.service"}), well=frozenset({"b.service"})),
            "",
        ),  # it is new, or failed then
        (
            Facts(failed=frozenset({"a.service", "b.service"}), well=frozenset({"a.service"})),
            "a.service has failed, not so in the last good boot",
        ),
        (
            Facts(complete=False, check="cannot pass x"),
            "boot-complete.target was not reached; cannot pass x",
        ),
    ],
)
def test_what_has_failed(facts: Facts, reason: str):
    assert judge(facts) == reason


def test_many_units_are_counted():
    failed = frozenset(f"{letter}.service" for letter in "abcdefgh")
    assert "e.service, 3 more have failed" in judge(Facts(failed=failed, well=failed))


# --- the way back


@pytest.mark.parametrize(
    ("policy", "order", "booted", "judged_before", "failed", "leads_to"),
    [
        (BootPolicy.ROLLBACK, "BA", "B", "", "B", "A"),
        (BootPolicy.TELL, "BA", "B", "", "B", None),
        (BootPolicy.NONE, "BA", "B", "", "B", None),
        (BootPolicy.ROLLBACK, "BA", "B", "B", "B", None),  # not its first boot
        (BootPolicy.ROLLBACK, "BA", "A", "", "A", None),  # another one is next
        (BootPolicy.ROLLBACK, "BA", "B", "", "AB", None),  # that has failed, too
        (BootPolicy.ROLLBACK, "CBA", "C", "", "BC", "A"),
        (BootPolicy.ROLLBACK, "B", "B", "", "B", None),
    ],
)
def test_where_a_failed_boot_leads(policy, order, booted, judged_before, failed, leads_to):
    found = deployments(order, booted)
    back = way_back(policy, found, lambda one: one.checksum in failed, first=booted not in judged_before)
    assert (back and back.checksum) == leads_to


def test_the_way_back_stays_in_the_stateroot():
    other = deployment(1, "A", osname="fedora")
    found = Deployments((deployment(0, "B", booted=True), other, deployment(2, "C")))
    back = way_back(BootPolicy.ROLLBACK, found, lambda one: one.checksum == "B", first=True)
    assert back is found.all[2]


@given(
    st.integers(1, 5),
    st.lists(st.booleans(), min_size=40, max_size=40),
    st.lists(st.integers(0, 4), max_size=5),
)
def test_a_system_never_goes_back_and_forth(count: int, health: list[bool], interrupted: list[int]):
    """Whatever fails when, no deployment is left twice, and the system comes to rest."""
    order, memory, left = [chr(65 + n) for n in range(count)], Memory(), []
    for number, good in enumerate(health):
        booted = order[0]
        mark = Mark(booted, Way.BOOT, booted, float(number), "x")
        memory = unmarked(memory, mark) if good else marked(memory, mark)
        back = None
        if not good:
            found = deployments("".join(order), booted)
            first = booted not in memory.judged
            back = way_back(BootPolicy.ROLLBACK, found, _has_failed(memory), first=first)
        if number in interrupted and not back:
            continue  # the power failed before it was recorded
        memory = judged(memory, booted)
        if back:
            left.append(booted)
            order.remove(back.checksum)
            order.insert(0, back.checksum)
    assert len(left) == len(set(left)) < count or not left


def _has_failed(memory: Memory) -> Callable[[Deployment], bool]:
    return lambda one: find(memory, one.checksum, Way.BOOT) is not None


# --- what is remembered


def test_the_identity_is_that_of_the_content():
    packages = [Package("a", "1", "all"), Package("b", "2", "amd64")]
    one = identity_of("base", packages)
    assert one == identity_of("base", reversed(packages))
    others = [
        identity_of("other", packages),
        identity_of("base", packages[:1]),
        identity_of("base", [packages[0], Package("b", "3", "amd64")]),
        identity_of("base", packages, [("touch", "x")]),
        identity_of("base", packages, initramfs=()),
        identity_of("base", packages, initramfs=("--force",)),
        identity_of("base", packages, initramfs_etc=("/etc/fstab",)),
    ]
    assert len({one, *others}) == 8


def test_marks_are_found_by_content_way_and_arguments():
    memory = marked(Memory(), MARK)
    assert find(memory, "one", Way.BOOT) == MARK
    assert find(memory, "one", Way.BOOT, ["quiet"]) == MARK
    assert find(memory, "one", Way.BOOT, []) is None
    assert find(memory, "one", Way.LIVE) is None
    assert find(memory, "two", Way.BOOT) is None
    again = replace(MARK, time=MARK.time + 1, commit="c2")
    assert marked(memory, again).marks == (again,)
    assert unmarked(memory, again).marks == ()


def test_what_is_remembered_is_bounded():
    memory = Memory()
    for number in range(80):
        memory = judged(marked(memory, replace(MARK, identity=str(number))), str(number))
    assert [mark.identity for mark in memory.marks] == [str(number) for number in range(30, 80)]
    assert len(memory.judged) == 50


def test_a_memory_survives_its_text():
    memory = Memory(
        marks=(MARK,), judged=("x",), well=("a.service",), back=Return("l", "t", 1.0, "r"), boot="b"
    )
    assert parse_memory(format_memory(memory)) == memory
    assert parse_memory(format_memory(Memory())) == Memory()


@pytest.mark.parametrize("text", ["", "x", "[]", "1", "null", '{"marks": [1]}', '{"marks": [{"way": "x"}]}'])
def test_a_damaged_memory_is_an_empty_one(text: str):
    assert parse_memory(text) == Memory()


def test_what_a_newer_version_has_added_is_left_out():
    value = json.loads(format_memory(Memory(marks=(MARK,))))
    value["later"] = value["marks"][0]["later"] = 1
    assert parse_memory(json.dumps(value)) == Memory(marks=(MARK,))


# --- boot counting


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("ostree-2-debian.conf", None),
        ("6a9857a393724b7a981ebb5b8495b9ea-6.12.57-1.conf", None),
        ("6a9857a393724b7a981ebb5b8495b9ea-6.12.57-1+3.conf", Counted(3)),
        ("6a9857a393724b7a981ebb5b8495b9ea-6.12.57-1+2-1.conf", Counted(2, 1)),
        ("ostree-1-debian+0-3.conf", Counted(0, 3)),
        ("ostree-1-debian+0.conf", Counted(0)),
        ("6.12.57+deb13-amd64.conf", None),  # a version, no counter
        ("6.12.57+deb13-amd64+05-1.conf", Counted(5, 1)),
        ("ostree-1-debian+0-3.conf.old", None),
        ("+3.conf", None),
    ],
)
def test_counters_in_names(name: str, counted: Counted | None):
    assert counter_of(name) == counted


def test_an_entry_names_its_deployment():
    entry = (
        "title Debian\nversion 1\n# options ostree=/no\n"
        "options root=LABEL=root rw ostree=/ostree/boot.1/debian/0a/0\nlinux /ostree/debian-0a/vmlinuz\n"
    )
    assert root_of(entry) == "/ostree/boot.1/debian/0a/0"
    assert root_of("options\tquiet\noptions  ostree=/x") == "/x"
    assert root_of("title ostree=/x\n\n") == ""


def test_what_is_told_of_an_entry():
    assert given_up(Counted(0, 3)) == "the boot loader gave it up after 3 attempts"
    assert given_up(Counted(0, 1)) == "the boot loader gave it up after 1 attempt"
    assert given_up(Counted(0)) == "the boot loader gave it up"
