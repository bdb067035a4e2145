"""Reading /proc/self/mountinfo."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.system import mountinfo

_LINE = "{id} {parent} 254:0 /root {target} rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro"


def _mounts(*rows: tuple[int, int, str]) -> tuple[mountinfo.MountPoint, ...]:
    return mountinfo.parse("\n".join(_LINE.format(id=i, parent=p, target=t) for i, p, t in rows) + "\n")


def test_mountinfo_fields():
    text = (
        "36 35 98:0 /mnt1\\040x /mnt2\\011y rw,noatime master:1 - ext3 /dev/root\\134z rw,errors=continue\n"
        "37 35 0:1 / /a rw - tmpfs none rw\n"
    )
    first, second = mountinfo.parse(text)
    assert (first.mount_id, first.parent_id, first.root, first.target) == (36, 35, "/mnt1 x", "/mnt2\ty")
    assert (first.fstype, first.source, first.super_options) == ("ext3", "/dev/root\\z", "rw,errors=continue")
    assert (second.fstype, second.options, second.super_options) == ("tmpfs", "rw", "rw")


@given(
    st.permutations([(10, 1, "/usr"), (20, 10, "/usr"), (15, 20, "/usr"), (1, 0, "/"), (30, 1, "/usr/local")])
)
def test_a_stack_follows_parents_whatever_the_order(rows: list[tuple[int, int, str]]):
    stack = mountinfo.stack_at(_mounts(*rows), "/usr")
    assert [entry.mount_id for entry in stack] == [10, 20, 15]


def test_only_mounts_on_the_visible_usr_are_below_it():
    rows = ((1, 0, "/"), (10, 1, "/usr"), (11, 10, "/usr/covered"), (20, 10, "/usr"), (21, 20, "/usr/share"),
            (22, 21, "/usr/share/deep"), (23, 1, "/usrx"), (24, 21, "/usr/share"))  # fmt: skip
    assert [entry.mount_id for entry in mountinfo.below(_mounts(*rows), "/usr")] == [21]
    assert mountinfo.stack_at(_mounts(*rows), "/nothing") == ()
    assert mountinfo.below(_mounts(*rows), "/nothing") == ()
