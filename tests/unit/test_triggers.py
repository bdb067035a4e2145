"""Which triggers a change has, and what each concerns."""

from __future__ import annotations

import pytest

from apt_ostree.model import triggers
from apt_ostree.model.treediff import Kind
from apt_ostree.model.triggers import ChangedFile, Trigger


def added(path: str, text: str = "") -> ChangedFile:
    return ChangedFile(path, Kind.ADDED, "", text)


def removed(path: str, text: str = "") -> ChangedFile:
    return ChangedFile(path, Kind.REMOVED, text, "")


def only(*files: ChangedFile, **facts):
    (step,) = triggers.steps(files, **facts)
    return step


@pytest.mark.parametrize(
    ("path", "trigger"),
    [
        ("/usr/lib/sysusers.d/a.conf", Trigger.SYSUSERS),
        ("/usr/lib/sysimage/apt-ostree/seeds.json", Trigger.SEEDS),
        ("/usr/lib/tmpfiles.d/a.conf", Trigger.TMPFILES),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", Trigger.LDCONFIG),
        ("/usr/local/lib/liba.so", Trigger.LDCONFIG),
        ("/etc/ld.so.conf.d/a.conf", Trigger.LDCONFIG),
        ("/usr/lib/udev/rules.d/99-a.rules", Trigger.UDEV),
        ("/etc/udev/udev.conf", Trigger.UDEV),
        ("/usr/share/dbus-1/system.d/a.conf", Trigger.DBUS),
        ("/usr/share/polkit-1/actions/a.policy", Trigger.POLKIT),
        ("/etc/polkit-1/rules.d/a.rules", Trigger.POLKIT),
        ("/etc/apparmor.d/usr.sbin.named", Trigger.APPARMOR),
        ("/usr/lib/systemd/catalog/a.catalog", Trigger.CATALOG),
        ("/usr/share/fonts/truetype/a.ttf", Trigger.FONTS),
        ("/usr/share/man/de/man1/a.1.gz", Trigger.MANUAL),
    ],
)
def test_a_path_has_its_trigger(path, trigger):
    assert only(added(path)).trigger is trigger


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/a",
        "/usr/share/doc/a/liba.so",
        "/usr/lib/a.socket",
        "/usr/lib/a.so/b",
        "/etc/a.conf",
        "/etc/apparmor.d/a.dpkg-dist",
    ],
)
def test_other_paths_have_none(path):
    assert triggers.steps([added(path)]) == ()


def test_they_are_in_the_order_of_a_boot():
    paths = ("/etc/apparmor.d/a", "/usr/share/dbus-1/services/a.service", "/usr/lib/sysusers.d/a.conf")
    steps = triggers.steps([*map(added, paths), added("/etc/sysctl.d/a.conf", "a.b=1")])
    order = [Trigger.SYSUSERS, Trigger.SYSCTL, Trigger.DBUS, Trigger.APPARMOR]
    assert [step.trigger for step in steps] == order


def test_what_the_kernel_does_not_allow_is_left_out():
    files = [added("/etc/sysctl.d/a.conf", "a.b=1"), added("/usr/lib/sysusers.d/a.conf")]
    assert only(*files, possible={Trigger.SYSUSERS}).trigger is Trigger.SYSUSERS


@pytest.mark.parametrize("path", ["/usr/lib/sysusers.d/a.conf", "/usr/lib/tmpfiles.d/a.conf"])
def test_programs_that_only_create_have_nothing_to_do_for_removed_files(path):
    assert triggers.steps([removed(path)]) == ()


@pytest.mark.parametrize("path", ["/usr/share/dbus-1/system.d/a.conf", "/usr/share/polkit-1/rules.d/a.rules"])
def test_daemons_read_their_files_again_for_removed_ones(path):
    assert only(removed(path)).files == (path,)


def test_of_many_fonts_the_directories_are_named():
    fonts = [added(f"/usr/share/fonts/a/{number}.ttf") for number in range(3)]
    assert only(*fonts).files == ("/usr/share/fonts/a",)


# --- sysctl, modules, binary formats


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("net.ipv4.ip_forward = 1", ("net/ipv4/ip_forward",)),
        ("net/ipv4/ip_forward=1", ("net/ipv4/ip_forward",)),
        ("-net.ipv4.conf.eth0/1.rp_filter=2", ("net/ipv4/conf/eth0.1/rp_filter",)),
        ("net/ipv4/conf/eth0.1/rp_filter=2", ("net/ipv4/conf/eth0.1/rp_filter",)),
        ("net.ipv4.conf.*.rp_filter=2", ("net/ipv4/conf/*/rp_filter",)),
        ("-net.ipv4.conf.all.rp_filter", ()),  # an exception to a pattern
        ("# vm.swappiness=1\n; vm.swappiness=1\n\n", ()),
        ("vm.swappiness=1\nvm.swappiness=2", ("vm/swappiness",)),
    ],
)
def test_the_keys_of_a_file(line, keys):
    assert triggers.keys(line) == keys


def test_a_key_that_no_file_sets_any_more_is_gone():
    change = ChangedFile("/usr/lib/sysctl.d/a.conf", Kind.CHANGED, "a.b=1\na.c=1", "a.b=2")
    step = only(change)
    assert (step.names, step.gone) == (("a/b",), ("a/c",))
    assert step.reason == "sets a.b; no longer sets a.c"
    other = added("/etc/sysctl.d/b.conf", "a.c=3")
    assert only(change, other).gone == ()


def test_a_file_that_sets_nothing_has_no_trigger():
    assert triggers.steps([added("/usr/lib/sysctl.d/a.conf", "# nothing\n")]) == ()


def test_modules_of_new_and_changed_files_are_loaded():
    step = only(added("/usr/lib/modules-load.d/a.conf", "# for a\nloop\ndummy\n"))
    assert (step.trigger, step.names) == (Trigger.MODULES, ("loop", "dummy"))
    assert "until the reboot" in step.reason
    assert triggers.steps([removed("/usr/lib/modules-load.d/a.conf", "loop\n")]) == ()


def test_formats_that_go_are_removed():
    one, two = ":one:M::one::/usr/bin/one:", ",two,E,,two,,/usr/bin/two,"
    assert triggers.formats(f"# x\n{one}\n{two}\n") == ("one", "two")
    step = only(removed("/usr/lib/binfmt.d/a.conf", one), added("/usr/lib/binfmt.d/b.conf", two))
    assert (step.files, step.names, step.gone) == (("/usr/lib/binfmt.d/b.conf",), ("two",), ("one",))


# --- AppArmor


@pytest.mark.parametrize(
    ("path", "loaded"),
    [
        ("named", "/etc/apparmor.d/named"),
        ("local/named", "/etc/apparmor.d/named"),
        ("force-complain/named", "/etc/apparmor.d/named"),
        ("abstractions/base", "/etc/apparmor.d"),
        ("tunables/home.d/site", "/etc/apparmor.d"),
    ],
)
def test_profiles_are_loaded_that_a_file_belongs_to(path, loaded):
    assert only(added(f"/etc/apparmor.d/{path}")).files == (loaded,)


def test_profiles_of_removed_files_are_unloaded():
    path = "/etc/apparmor.d/usr.sbin.named"
    step = only(removed(path), profiles={path: ("named",)})
    assert (step.files, step.gone, step.reason) == ((), ("named",), "unloads named")
    assert triggers.steps([removed(path)]) == ()  # nothing is known of it


def test_a_removed_part_has_its_profile_loaded_again():
    assert only(removed("/etc/apparmor.d/local/named")).files == ("/etc/apparmor.d/named",)
