"""Kernel arguments: changes of a command line, and deployments with them."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.core import kargs as core
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import grub, kargs
from apt_ostree.model.kargs import Changes
from apt_ostree.model.queries import KernelArguments
from apt_ostree.model.requests.deployments import Kargs
from apt_ostree.model.requests.options import DeployOptions
from tests.unit.repos import System

LINE = 'root=UUID=1 rw console=tty0 console=ttyS0 dyndbg="file a.c +p; file b.c +p" quiet'
ARGUMENTS = kargs.split(LINE)
_words = st.from_regex(r"[a-z_.]{1,6}(=[a-z0-9=,]{0,4}|=\"[a-z =]{0,5}\")?", fullmatch=True)


def changed(**changes: tuple[str, ...]) -> str:
    return " ".join(Changes(**changes).apply(ARGUMENTS))


def test_quotes_keep_an_argument_together():
    assert ARGUMENTS[4] == 'dyndbg="file a.c +p; file b.c +p"' and len(ARGUMENTS) == 6
    assert kargs.split('a "b c" d') == ("a", '"b c"', "d")
    assert kargs.split('a "b c') == ("a", "b", "c")


@given(st.lists(_words, max_size=6).map(tuple))
def test_what_is_split_is_what_was_joined(words):
    assert kargs.split(" ".join(words)) == words


@given(st.lists(_words, max_size=6).map(tuple), _words)
def test_what_was_appended_can_be_deleted(words, word):
    appended = Changes(append=(word,)).apply(words)
    assert appended == (*words, word)
    without = Changes(delete=(word,)).apply(appended)
    assert sorted(without) == sorted(words)
    assert Changes(append_if_missing=(word, word)).apply(appended) == appended


def test_several_arguments_in_a_text():
    texts = {"append": ['a b="c d"'], "delete": ["quiet rw"], "replace": ["root=2"]}
    assert Changes.split(**texts, append_if_missing=("e",)) == Changes(
        append=("a", 'b="c d"'), delete=("quiet", "rw"), replace=("root=2",), append_if_missing=("e",)
    )
    with pytest.raises(UsageError, match="'a b'"):
        Changes.split(append_if_missing=("a b",))


def test_each_change():
    assert changed(append=("debug", "console=tty1")) == f"{LINE} debug console=tty1"
    assert changed(append_if_missing=("quiet", "debug")) == f"{LINE} debug"
    assert changed(delete=("quiet", "console=tty0")) == LINE.replace(" console=tty0", "").replace(
        " quiet", ""
    )
    assert changed(delete_if_present=("quiet", "debug")) == LINE.replace(" quiet", "")
    assert changed(replace=("console=tty0=tty1", "root=UUID=2")) == LINE.replace("tty0", "tty1").replace(
        "UUID=1", "UUID=2"
    )
    assert changed(replace=("root=UUID=1=LABEL=x",)) == LINE.replace("UUID=1", "LABEL=x")
    assert changed(replace=("quiet=1",)) == f"{LINE}=1"


@pytest.mark.parametrize("argument", ["console", "root", "console=tty9", "quiet=1", "debug"])
def test_only_exactly_what_is_given_is_removed_if_it_is_present(argument):
    assert changed(delete_if_present=(argument,)) == LINE
    given = (*ARGUMENTS, argument)
    assert Changes(delete_if_present=(argument, argument)).apply(given) == ARGUMENTS


def test_a_key_alone_names_its_only_value_to_delete():
    assert changed(delete=("root",)) == LINE.removeprefix("root=UUID=1 ")
    assert Changes(delete=("a",)).apply(("a=1", "a", "a=2")) == ("a=1", "a=2")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"delete": ("debug",)}, "no kernel argument 'debug'"),
        ({"delete": ("console",)}, "2 kernel arguments 'console'"),
        ({"replace": ("console=x",)}, "2 kernel arguments"),
        ({"replace": ("debug=1",)}, "no kernel argument 'debug'"),
    ],
)
def test_changes_that_cannot_be_made(changes, reason):
    with pytest.raises(UsageError, match=reason):
        changed(**changes)


@pytest.mark.parametrize("text", ["a b", "", '"a', " a"])
def test_an_argument_is_one(text):
    with pytest.raises(ValueError, match="expected one kernel argument"):
        Changes(append=(text,))


def test_a_text_from_an_editor():
    assert kargs.read_edited('# a\n  rw\n\nx="a b" quiet\n #b\n') == ("rw", 'x="a b"', "quiet")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no kernel arguments"), ("# rw\n \n", "no kernel arguments"), ("rw ostree=/x", "ostree=")],
)
def test_a_text_from_an_editor_is_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        kargs.read_edited(text)


def test_those_of_one_boot_are_left_out():
    line = "BOOT_IMAGE=(hd0)/vmlinuz rw ostree=/ostree/boot.1/debian/x/0 initrd=a"
    assert kargs.own(kargs.split(line)) == ("rw",)


# --- deployments


def set_arguments(system: System, **options):
    return system.run(core.change, Kargs(**options))


def arguments(system: System) -> list[str]:
    return core.kernel_arguments(KernelArguments())


def test_a_deployment_gets_them_and_the_next_ones_keep_them(system: System):
    result = set_arguments(system, changes=Changes(append=("quiet", 'x="a b"')))
    assert (result.changed, result.next_boot) == (True, True)
    assert result.details["kernel-arguments"] == {"before": [], "after": ["quiet", 'x="a b"']}
    assert arguments(system) == ["quiet", 'x="a b"']
    assert system.order() == [system.one, system.one]
    (plan,) = system.plans("kernel-arguments")
    assert plan["after"] == ["quiet", 'x="a b"']
    set_arguments(system, changes=Changes(delete=("quiet",)))
    assert arguments(system) == ['x="a b"']
    assert not set_arguments(system, changes=Changes(append_if_missing=('x="a b"',))).changed
    set_arguments(system, whole=("rw",), seen=('x="a b"',))
    assert arguments(system) == ["rw"]
    with system.open() as machine:
        pending = machine.deployments().all[0]
        machine.stage(system.two, pending.origin, pending)
    assert arguments(system) == ["rw"]


def test_those_of_the_running_kernel_or_another_deployment(system: System, monkeypatch, tmp_path):
    (tmp_path / "cmdline").write_text("BOOT_IMAGE=x rw debug ostree=/x\n")
    monkeypatch.setattr(core, "_RUNNING", tmp_path / "cmdline")
    set_arguments(system, import_running=True, changes=Changes(delete=("debug",)))
    assert arguments(system) == ["rw"]
    assert core.kernel_arguments(KernelArguments(running=True)) == ["rw", "debug"]
    assert core.kernel_arguments(KernelArguments(deploy_index=1)) == []
    set_arguments(system, deploy_index=1, changes=Changes(append=("quiet",)))
    assert arguments(system) == ["quiet"]


def test_refusals_change_nothing(system: System):
    with pytest.raises(Refused, match="changed meanwhile"):
        set_arguments(system, whole=("rw",), seen=("ro",))
    with pytest.raises(UsageError, match="there is no deployment 7"):
        set_arguments(system, deploy_index=7)
    result = set_arguments(system, changes=Changes(append=("quiet",)), deploy=DeployOptions(dry_run=True))
    assert result.changed and system.order() == [system.one]
    with pytest.raises(ValueError, match="next boot"):
        replace(Kargs(), deploy=DeployOptions(download_only=True))


def test_what_would_break_the_menu_of_a_composed_disk_is_refused(system: System):
    menu = system.place / "boot/grub/grub.cfg"
    menu.parent.mkdir(parents=True, exist_ok=True)
    repo = f"--repo={system.place}/ostree/repo"
    subprocess.run(["ostree", "config", repo, "set", "sysroot.bootloader", "none"], check=True)
    quoted = Changes(append=('x="a b"',))
    menu.write_text(grub.menu("debian"))
    with pytest.raises(Refused, match="boot menu"):
        set_arguments(system, changes=quoted)
    assert system.order() == [system.one]
    assert set_arguments(system, changes=Changes(append=("x=a,b",))).changed
    menu.write_text("# made by grub-mkconfig\n")
    assert set_arguments(system, changes=quoted).changed
