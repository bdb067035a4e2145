"""What a plan reads from paths: units, links that enable them, kernels; and what it refuses."""

from __future__ import annotations

import pytest

from apt_ostree.model import plan
from apt_ostree.model.package import Package, PackageChange, PackageDiff
from apt_ostree.model.treediff import Kind, PathChange


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("etc/systemd/system/multi-user.target.wants/a.service", ("multi-user.target", "a.service")),
        ("lib/systemd/system/sockets.target.wants/a.socket", ("sockets.target", "a.socket")),
        ("etc/systemd/system/a.service.requires/b.service", ("a.service", "b.service")),
        ("etc/systemd/system/getty.target.wants/getty@tty1.service", ("getty.target", "getty@tty1.service")),
        ("etc/systemd/system/multi-user.target.wants", None),
        ("etc/systemd/system/multi-user.target.wants/", None),
        ("etc/systemd/system/multi-user.target.wants/a/b", None),
        ("etc/systemd/system/a.service.d/b.conf", None),
        ("etc/systemd/system/a.service", None),
        ("etc/systemd/user/default.target.wants/a.service", None),
    ],
)
def test_enabled_unit(path: str, link: tuple[str, str] | None):
    assert plan.enabled_unit(path) == link


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("lib/modules/6.1/vmlinuz", Kind.ADDED, {"6.1", "kernel"}),
        ("lib/modules/6.1/vmlinuz", Kind.CHANGED, {"6.1", "kernel"}),
        ("lib/modules/6.1/vmlinuz", Kind.REMOVED, {"6.1", "kernel", "visible"}),
        ("lib/modules/6.0/vmlinuz", Kind.REMOVED, {"6.0", "kernel"}),
        ("lib/modules/6.1/initramfs.img", Kind.CHANGED, {"6.1", "initramfs"}),
        ("lib/modules/6.1/initramfs.img", Kind.REMOVED, None),
        ("lib/modules/6.1/kernel/x.ko", Kind.CHANGED, None),
        ("lib/modules/6.1/deep/vmlinuz", Kind.ADDED, None),
        ("share/vmlinuz", Kind.ADDED, None),
    ],
)
def test_kernel_notes(path: str, kind: Kind, words: set[str] | None):
    notes = plan.kernel_notes([PathChange(path, kind, False)], "6.1", lambda _kernel: ())
    assert bool(notes) == (words is not None)
    assert all(word in notes[0] for word in words or ())
    if words and "visible" not in words:
        assert "visible" not in notes[0]


def test_the_reason_why_an_initramfs_was_made_anew():
    paths = ("lib/modules/6.1/initramfs.img", "lib/modprobe.d/x.conf", "bin/hello", "bin/udevadm")
    changes = [PathChange(path, Kind.CHANGED, False) for path in paths]
    (note,) = plan.kernel_notes(changes, "6.1", lambda kernel: {"usr/bin/udevadm"} if kernel == "6.1" else ())
    assert note.endswith("waits for the reboot; it was made anew, as /usr/bin/udevadm and 1 more changed")


@pytest.mark.parametrize(
    ("difference", "counts"),
    [
        (PackageDiff(), []),
        (PackageDiff(added=(Package("a", "1", "all"),)), []),
        (PackageDiff(removed=(Package("a", "1", "all"), Package("b", "1", "all"))), [("2", "a", "b")]),
        (PackageDiff(changed=(PackageChange("c", "all", "1", "2"),)), [("1", "c")]),
        (
            PackageDiff((), (Package("a", "1", "all"),), (PackageChange("c", "all", "1", "2"),)),
            [("1", "a"), ("1", "c")],
        ),
    ],
)
def test_replacement_refusals(difference: PackageDiff, counts: list[tuple[str, ...]]):
    reasons = plan.replacement_refusals(difference)
    assert len(reasons) == len(counts)
    assert all(word in reason for reason, words in zip(reasons, counts, strict=True) for word in words)


def test_directories_beside_usr_wait_for_the_reboot():
    notes = plan.root_notes(["afs", "old"], ["afs", "snap", "nix"])
    assert notes == (
        "/nix is made with the reboot",
        "/snap is made with the reboot",
        "/old is removed with the reboot",
    )
    assert plan.root_notes(["afs"], ["afs"]) == ()
