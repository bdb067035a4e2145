"""The merge of a path of /etc."""

from __future__ import annotations

import itertools

import pytest

from apt_ostree.model.etc_merge import three_way
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.plan import EtcAction

ONE, TWO, MINE = (FileState("file", 0o644, content=text) for text in (b"1", b"2", b"mine"))
DIRECTORY, LINK = FileState("directory", 0o755), FileState("symlink", 0o777, content=b"x")
STATES = (ABSENT, ONE, TWO, MINE, DIRECTORY, LINK)


@pytest.mark.parametrize(("old", "new", "current"), list(itertools.product(STATES, repeat=3)))
def test_three_way(old: FileState, new: FileState, current: FileState):
    decision = three_way(old, new, current)
    if current == new or (old == new and current != old):
        assert decision is None
    elif current == old:
        assert decision is not None
        assert decision[0] is (EtcAction.REMOVE if new is ABSENT else EtcAction.WRITE)
    else:
        assert decision is not None
        assert decision[0] is EtcAction.KEEP  # what the administrator made of it always wins
    assert decision is None or decision[1]


@pytest.mark.parametrize("changed", [
    FileState("file", 0o600, content=b"1"), FileState("file", 0o644, 1, content=b"1"),
    FileState("file", 0o644, 0, 1, content=b"1"), FileState("file", 0o644, 0, 0, b"1", (("user.x", b"y"),)),
])  # fmt: skip
def test_metadata_is_an_edit_too(changed: FileState):
    decision = three_way(ONE, TWO, changed)
    assert decision and decision[0] is EtcAction.KEEP
