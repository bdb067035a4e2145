"""Whether the boot files of a new deployment fit on /boot, and what is said if they do not."""

from __future__ import annotations

from typing import Any

import pytest

from apt_ostree.core import deploy
from apt_ostree.core.deploy import Target
from apt_ostree.errors import Refused
from apt_ostree.model.bootspace import MARGIN, BootDirectory, BootSpace, by_directory
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.origin import Origin
from apt_ostree.model.requests.options import DeployOptions
from apt_ostree.model.sizes import Space
from apt_ostree.system import space
from apt_ostree.system.ostree import bootfs
from tests.unit import repos
from tests.unit.repos import System

MB = 1_000_000


def deployment(index: int, boot: str, **flags: Any) -> Deployment:
    fields = {"osname": "debian", "booted": False, "staged": False, "pinned": False, **flags}
    osname = fields.pop("osname")
    return Deployment(index, osname, "c", index, "", Origin(), unlocked="none", boot_checksum=boot, **fields)


BOOTED, ROLLBACK = deployment(0, "aa", booted=True), deployment(1, "bb")
PINNED, OTHER = deployment(2, "cc", pinned=True), deployment(3, "dd", osname="other")


def fits(*others: Deployment, free: int, removes_first: bool = False) -> BootSpace:
    """Return the space for 50 MB of boot files beside those of deployments, with 40 MB each."""
    directories = tuple(
        BootDirectory(f"/boot/ostree/{d.osname}-{d.boot_checksum}", 40 * MB, (d,)) for d in (BOOTED, *others)
    )
    return BootSpace(50 * MB, free, directories, "debian", removes_first)


@pytest.mark.parametrize(
    ("others", "free", "removes_first", "fit"),
    [
        ((), 50 * MB + MARGIN, False, True),
        ((), 50 * MB + MARGIN - 1, True, False),
        ((ROLLBACK,), 20 * MB, False, False),
        ((ROLLBACK,), 20 * MB, True, True),
        ((PINNED,), 20 * MB, True, False),
        ((OTHER,), 20 * MB, True, False),
        ((ROLLBACK, PINNED), 5 * MB, True, False),
    ],
)
def test_what_goes_first_counts_only_if_ostree_removes_it_first(others, free, removes_first, fit):
    assert (fits(*others, free=free, removes_first=removes_first).refusal() is None) is fit


def test_boot_files_that_are_there_already_need_nothing():
    assert BootSpace(0, 0, (), "debian", removes_first=False).refusal() is None


def test_the_refusal_says_how_much_is_needed_and_what_frees_it():
    refusal = fits(ROLLBACK, PINNED, free=5 * MB).refusal()
    assert refusal
    assert refusal.message.endswith("51.0 MB needed, 5.0 MB free")
    assert refusal.details == (
        "/boot/ostree/debian-aa: 40.0 MB, of deployment 0 (booted)",
        "/boot/ostree/debian-bb: 40.0 MB, of deployment 1",
        "/boot/ostree/debian-cc: 40.0 MB, of deployment 2 (pinned)",
    )
    assert refusal.hint
    assert refusal.hint.index("cleanup -p -r") < refusal.hint.index("admin pin --unpin 2")
    refusal = fits(ROLLBACK, free=5 * MB, removes_first=True).refusal()
    assert refusal and "45.0 MB free or becoming free" in refusal.message
    assert refusal.hint and "cleanup" not in refusal.hint


def test_deployments_share_a_directory():
    staged = deployment(0, "aa", staged=True)
    assert by_directory((staged, BOOTED, ROLLBACK), "/boot/ostree/debian-aa") == (BOOTED,)
    assert by_directory((staged, BOOTED, ROLLBACK), "/boot/ostree/debian-ee") == ()


# --- with a repository


KERNEL = {
    "usr/lib/modules/6.2/vmlinuz": "k" * 5000,
    "usr/lib/modules/6.2/initramfs.img": "i" * 10,
    "usr/lib/modules/6.2/dtb/vendor/board.dtb": "d",
    "usr/lib/modules/6.2/modules.dep": "x" * 9000,
    "usr/lib/modules/6.2-no-image/modules.dep": "x",
    "usr/etc/ut/tool.conf": "one\n",
    "usr/lib/os-release": "ID=test\nPRETTY_NAME=Test\n",
}


@pytest.fixture
def small(system: System, monkeypatch) -> list[int]:
    """A /boot of its own, with as much free space as the list says."""
    free = [10 * MB]
    monkeypatch.setattr(bootfs, "_share_file_system", lambda *_: False)
    monkeypatch.setattr(space, "of", lambda _path: Space(0, free[0], None))
    return free


def test_the_files_that_ostree_copies_are_counted_in_blocks(system: System, small):
    commit = repos.write_commit(system.repo, KERNEL, ref="kernel")
    with system.open() as sysroot:
        names = bootfs.boot_files(sysroot.repo, commit)
        assert sorted(names) == ["dtb/vendor/board.dtb", "initramfs.img", "vmlinuz"]
        found = bootfs.read(sysroot, commit, repos.OSNAME)
        assert found.needed % 512 == 0 and 5011 <= found.needed <= 20_000

        assert [d.index for directory in found.directories for d in directory.deployments] == [0]
        assert bootfs.read(sysroot, system.two, repos.OSNAME).needed == 0, "the same kernel as the booted one"


def test_a_deployment_that_does_not_fit_is_not_staged(system: System, small):
    commit = repos.write_commit(system.repo, KERNEL, ref="kernel")
    small[0] = MARGIN
    with system.transaction() as tx, pytest.raises(Refused):
        deploy.deploy(tx, Target(Origin("kernel"), commit), DeployOptions())
    assert system.order() == [system.one]
    small[0] = 2 * MARGIN
    with system.transaction() as tx:
        assert deploy.deploy(tx, Target(Origin("kernel"), commit), DeployOptions()).changed
    assert system.order() == [commit, system.one]


def test_nothing_is_needed_on_the_repositorys_file_system(system: System, small, monkeypatch):
    commit = repos.write_commit(system.repo, KERNEL, ref="kernel")
    monkeypatch.setattr(bootfs, "_share_file_system", lambda *_: True)
    with system.open() as sysroot:
        assert bootfs.read(sysroot, commit, repos.OSNAME).needed == 0
