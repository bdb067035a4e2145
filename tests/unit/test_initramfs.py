"""When an initramfs has to be made again."""

import pytest

from apt_ostree.model.initramfs import contents, is_outdated
from tests.unit.test_finish import KERNEL, LISTING

HELD = contents(LISTING)


def test_contents_of_a_listing():
    assert {"usr/lib/udev", "usr/bin/udevadm", "bin"} <= HELD
    assert not any("->" in path or path.startswith("base") for path in HELD)


@pytest.mark.parametrize(
    ("path", "outdated"),
    [
        ("bin/udevadm", True),  # it holds the program
        ("bin/hello", False),
        ("lib/dracut/modules.d/35network/module-setup.sh", True),
        ("lib/firmware/intel-ucode/06-a5-02", True),
        ("etc/dracut.conf.d/10-mine.conf", True),
        (f"lib/modules/{KERNEL}/updates/dkms/zfs.ko.xz", True),
        (f"lib/modules/{KERNEL}/modules.dep", False),
        ("lib/modules/6.1.0-other/updates/dkms/zfs.ko.xz", False),
        ("lib/systemd/system/hello.service", False),
    ],
)
def test_what_makes_it_outdated(path: str, outdated: bool):
    assert is_outdated(KERNEL, ["bin/other", path], HELD) is outdated


def test_an_initramfs_without_a_list_depends_on_its_inputs():
    assert not is_outdated(KERNEL, ["bin/udevadm"], ())
    assert is_outdated(KERNEL, ["lib/firmware/x"], ())
