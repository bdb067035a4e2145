"""Why a live change is refused, from facts about the running system."""

from __future__ import annotations

import pytest

from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.refusals import mount_refusals, opt_refusals, space_refusals
from apt_ostree.model.sizes import Space
from apt_ostree.model.treediff import Kind, PathChange

GONE = PathChange("share/x", Kind.REMOVED, is_dir=True)


@pytest.mark.parametrize(
    ("change", "mounted", "refused"),
    [
        (GONE, "/usr/share/x", True),
        (GONE, "/usr/share/x/deep/down", True),
        (GONE, "/usr/share", False),  # a path in it goes, and that is hidden
        (GONE, "/usr/share/xy", False),
        (PathChange("share/x", Kind.CHANGED, is_dir=True), "/usr/share/x", False),
        (PathChange("share/x", Kind.ADDED, is_dir=True), "/usr/share/x", False),
    ],
)
def test_mounts(change: PathChange, mounted: str, refused: bool):
    reasons = mount_refusals([change], [mounted], "/usr")
    assert len(reasons) == refused
    assert all(reason.startswith(mounted) for reason in reasons)


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (ABSENT, False),
        (FileState("symlink", content=b"../../usr/lib/opt/fx"), False),
        (FileState("symlink", content=b"/srv/fx"), True),
        (FileState("directory"), True),
        (FileState("file"), True),
    ],
)
def test_a_place_in_opt(state: FileState, refused: bool):
    reasons = opt_refusals({"fx": state, "free": ABSENT})
    assert len(reasons) == refused
    assert all("/opt/fx" in reason for reason in reasons)


PLENTY = 10**9


@pytest.mark.parametrize(
    ("space", "count", "word"),
    [
        (Space(PLENTY, PLENTY, PLENTY), 1000, None),
        (Space(PLENTY, PLENTY, None), 10**6, None),  # such as btrfs, which does not count inodes
        (Space(1_000_000, PLENTY, PLENTY), 0, "MB"),  # what is reserved for root does not help
        (Space(4_000_000, 0, PLENTY), 0, None),
        (Space(4_000_000, 0, PLENTY), 1, "MB"),
        (Space(PLENTY, PLENTY, 200), 0, None),
        (Space(PLENTY, PLENTY, 200), 1, "inodes"),
        (Space(0, 0, 0), 1, "MB"),  # one reason for each place
    ],
)
def test_space(space: Space, count: int, word: str | None):
    reasons = space_refusals({"/var": space}, [GONE] * count)
    assert len(reasons) == (word is not None)
    assert all(word in reason and "/var" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("space", "refused"),
    [
        (Space(0, PLENTY, None), False),
        (Space(0, 16_000_000, None), True),  # of which ext4 lets nobody have anything
        (Space(PLENTY, PLENTY, None), False),
        (Space(4_000_000, 4_000_000, None), False),  # such as btrfs, which reserves nothing for root
    ],
)
def test_a_removal_may_use_what_is_reserved_for_root(space: Space, refused: bool):
    assert bool(space_refusals({"/var": space}, [], removal=True)) == refused


def test_each_place_is_looked_at():
    free = {"/a": Space(0, 0, 0), "/b": Space(PLENTY, PLENTY, 0), "/c": Space(PLENTY, PLENTY, None)}
    reasons = space_refusals(free, [])
    assert [("/a" in reason, "/b" in reason) for reason in reasons] == [(True, False), (False, True)]
