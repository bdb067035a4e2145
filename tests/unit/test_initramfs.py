"""When an initramfs has to be made again."""

import pytest

from apt_ostree.model.initramfs import contents, outdated_by, paths_text, plan_notes, read_list, required
from tests.unit.test_finish import KERNEL, LISTING

HELD = contents(LISTING)


def test_contents_of_a_listing():
    assert {"usr/bin/udevadm", "bin"} <= HELD
    assert not any("->" in path or path.startswith("base") for path in HELD)
    assert "usr/lib/udev" not in HELD  # a directory


def test_directories_in_the_list_of_an_older_tree_are_left_out():
    held = read_list("bin\nusr\nusr/lib\nusr/lib/udev\nusr/lib/udev/rules.d\nusr/lib/udev/rules.d/a.rules\n")
    assert held == {"bin", "usr/lib/udev/rules.d/a.rules"}
    package = ["", "lib", "lib/udev", "lib/udev/rules.d", "bin/tool"]  # as in dpkg's list
    assert plan_notes({KERNEL: held}, [], [], {"tool": package}) == ()


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


#: As in dracut's modules 90lvm, 09dbus-daemon, 01systemd-ask-password, 91crypt-gpg, 90crypt and 62bluetooth.
SETUP = r"""
check() {
    require_binaries lvm grep || return 1
    require_binaries busctl || return 1
    require_binaries \
        systemd-ask-password \
        "$systemdutildir"/systemd-reply-password \
        || return 1
    sc_requires() {
        require_binaries gpg-agent \
            && require_binaries "${systemdsystemunitdir}/rngd.service"
    }
    require_any_binary /usr/lib/bluetooth/bluetoothd "$tmpfilesdir"/x; return 0
    if ! require_binaries "$systemdutildir"/system-generators/y; then return 1; fi
    # require_binaries_of_others nothing
    [[ $hostonly ]] && return 255
    return 0
}
"""


def test_the_programs_that_a_module_needs():
    assert list(required(SETUP)) == [
        ("bin/lvm", "sbin/lvm"),
        ("bin/grep", "sbin/grep"),
        ("bin/busctl", "sbin/busctl"),
        ("bin/systemd-ask-password", "sbin/systemd-ask-password"),
        ("lib/systemd/systemd-reply-password",),
        ("bin/gpg-agent", "sbin/gpg-agent"),
        ("lib/systemd/system/rngd.service",),
        ("lib/bluetooth/bluetoothd",),
        ("lib/systemd/system-generators/y",),
    ]
    assert not list(required("check() {\n    return 0\n}\n"))


def test_a_module_that_only_others_ask_for_needs_nothing():
    setup = "check() {\n    require_binaries capsh || return 1\n    return 255\n}\n"
    assert not list(required(setup + "depends() {\n    return 0\n}\n"))
    assert list(required(setup.replace("255", "0")))


def test_a_program_that_a_module_lacked_makes_it_outdated():
    changed = ["sbin/lvm", "share/bash-completion/completions/lvm", "bin/other"]
    assert outdated_by(KERNEL, changed, HELD, ["bin/lvm", "sbin/lvm"]) == ["sbin/lvm"]


def test_the_reason_is_the_first_path():
    assert paths_text(["bin/a"]) == "/usr/bin/a"
    assert paths_text(["bin/a", "bin/b", "bin/c"]) == "/usr/bin/a and 2 more"


def test_what_is_known_before_packages_are_unpacked():
    kernels = {KERNEL: HELD}
    udev = {"udev": ["bin/udevadm"], "hello": ["bin/hello"], "dracut": ["lib/dracut/dracut-functions.sh"]}
    assert plan_notes(kernels, [], [], {"hello": ["bin/hello"]}) == ()
    assert plan_notes({}, [], ["cryptsetup"], udev) == ()
    assert plan_notes(kernels, [], [], udev) == (
        f"made anew for {KERNEL}, as it holds files of dracut, udev",
    )
    many = {f"p{number}": ["bin/udevadm"] for number in range(5)}
    assert plan_notes(kernels, [], [], many)[0].endswith("of p0, p1, p2 and 2 more packages")
    assert plan_notes(kernels, ["linux-image-7"], ["cryptsetup"], udev) == (
        "made for the new kernel of linux-image-7",
    )


@pytest.mark.parametrize(
    "name",
    ["dracut-network", "firmware-iwlwifi", "amd64-microcode", "zfs-dkms", "cryptsetup", "lvm2", "mdadm"],
)
def test_a_package_that_is_likely_to_bring_something_is_named(name: str):
    kernels = {KERNEL: HELD}
    assert plan_notes(kernels, [], ["hello", name], {}) == (f"may be made anew because of {name}",)
    certain = plan_notes(kernels, [], [name], {"udev": ["bin/udevadm"]})
    assert certain == (f"made anew for {KERNEL}, as it holds files of udev",)


def test_other_new_packages_are_not_named():
    assert plan_notes({KERNEL: HELD}, [], ["hello", "dkms", "firmware"], {}) == ()
