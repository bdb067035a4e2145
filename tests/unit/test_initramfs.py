"""When an initramfs has to be made again."""

import pytest

from apt_ostree.model.initramfs import contents, outdated_by, paths_text, plan_notes
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
    assert outdated_by(KERNEL, ["bin/other", path], HELD) == ([path] if outdated else [])


def test_an_initramfs_without_a_list_depends_on_its_inputs():
    assert not outdated_by(KERNEL, ["bin/udevadm"], ())
    assert outdated_by(KERNEL, ["lib/firmware/x"], ())


def test_the_reason_is_the_first_path():
    assert paths_text(["bin/a"]) == "/usr/bin/a"
    assert paths_text(["bin/a", "bin/b", "bin/c"]) == "/usr/bin/a and 2 more"


def test_what_is_known_before_packages_are_unpacked():
    kernels = {KERNEL: HELD}
    udev = {"udev": ["bin/udevadm"], "hello": ["bin/hello"], "dracut": ["lib/dracut/dracut-functions.sh"]}
    assert plan_notes(kernels, [], {"hello": ["bin/hello"]}) == ()
    assert plan_notes({}, [], udev) == ()
    assert plan_notes(kernels, [], udev) == (f"made anew for {KERNEL}, as it holds files of dracut, udev",)
    many = {f"p{number}": ["bin/udevadm"] for number in range(5)}
    assert plan_notes(kernels, [], many)[0].endswith("of p0, p1, p2 and 2 more packages")
    assert plan_notes(kernels, ["linux-image-7"], udev) == ("made for the new kernel of linux-image-7",)
