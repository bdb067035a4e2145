"""container commit and prepare, on a root directory: what is refused, what is left, in which order."""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from apt_ostree.cli import client, main
from apt_ostree.core.build import initramfs_state
from apt_ostree.core.compose import postprocess
from apt_ostree.core.container import committing, places, preparing
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import NotAuthorized, Refused, UsageError
from apt_ostree.model import events, layout, oci, spdx, tmpfiles
from apt_ostree.model.requests.images import ContainerCommit, ContainerPrepare
from apt_ostree.system import caller, mountinfo, rootstate, running
from tests.unit.repos import write_files

HOOK = Path(__file__).parents[2] / "data/apt-ostree/container-packages"
KERNEL = "6.12.1-amd64"
MODULES = f"{layout.KERNEL_MODULES}/{KERNEL}"
STATUS = (
    "Package: {}\nStatus: install ok {}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b>\n"
    "Description: b\n\n"
)
FILL = ["systemd-tmpfiles", "seeds"]
KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root directory of a container after a RUN step, in place of /."""
    write_files(tmp_path, {
        f"{layout.DPKG_ADMINDIR}/status": STATUS.format("base", "installed"),
        f"{layout.DPKG_ADMINDIR}/info/base.list": "/.\n",
        layout.TMPFILES_LAYOUT: tmpfiles.layout_text(),
        layout.TMPFILES_VAR: "d /var/lib/app 0711 - - -\nd /var/log\nL /var/run - - - - ../run\n",
        f"{MODULES}/vmlinuz": "kernel",
        f"{MODULES}/{layout.INITRAMFS}": "initramfs",
        f"{MODULES}/{layout.INITRAMFS_LIST}": "usr/bin/udevadm\n",
        "usr/bin/udevadm": "#!udevadm",
        "usr/lib/os-release": "ID=debian\n",
        "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
        "etc/group": "root:x:0:\n",
        "var/lib/dpkg": "-> ../../usr/lib/sysimage/dpkg",
    })  # fmt: skip
    for name in ("boot", "run", "tmp", "var/lib/app", "var/log"):
        (tmp_path / name).mkdir(exist_ok=True)
    initramfs_state.write(tmp_path, KERNEL)
    for module in (committing, preparing):
        monkeypatch.setattr(module, "_ROOT", tmp_path)
    monkeypatch.setattr(running, "booted_on_ostree", lambda: False)
    monkeypatch.setattr(running, "booted_with_systemd", lambda: False)
    monkeypatch.setattr(places, "require_root", lambda _what: None)
    return tmp_path


@pytest.fixture
def steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that are not this module's own, as they are taken."""
    taken: list[str] = []
    monkeypatch.setattr(preparing.process, "run", partial(_run_here, taken, preparing.process.run))
    monkeypatch.setattr(preparing.seeds, "give_here", lambda _report: taken.append("seeds") or False)

    def finish(_report, ids, run):
        assert os.environ["SOURCE_DATE_EPOCH"] == "0"
        taken.append(f"finish {dict(ids.users)}")
        run(["sh", "-c", 'pwd >where; echo "$INITRD" >>where'], "look around")

    monkeypatch.setattr(postprocess, "finish", finish)
    return taken


def _run_here(taken: list[str], run, words, **options):
    """Stand for systemd-tmpfiles, which would work on /; all else is run."""
    if words[0] != "systemd-tmpfiles":
        return run(words, **options)
    taken.append(words[0])
    return None


def commit(**options) -> tuple[dict, list[events.Event]]:
    found: list[events.Event] = []
    request = ContainerCommit(**options)
    return committing.commit(Transaction(found.append, request.title), request).to_json(), found


# --- the verbs


def test_the_steps_of_a_commit(root, steps, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    write_files(root, {
        layout.ACCOUNT_IDS: "u app 900\ng app 900\n",
        "usr/ids": "u other 300\n",
        "run/x": "x", "tmp/d/x": "x", "var/lib/app/data": "x", "var/lib/apt/extended_states": "states",
        "etc/ssh/ssh_host_rsa_key": KEY, "etc/app/key": KEY,
        f"{layout.DPKG_ADMINDIR}/status": STATUS.format("base", "installed")
        + STATUS.format("openssh-server", "installed"),
    })  # fmt: skip
    result, _events = commit(shared=("/etc/app",), account_ids=str(root / "usr/ids"))
    assert steps == [*FILL, "finish {'app': 900, 'other': 300}"]
    assert "SOURCE_DATE_EPOCH" not in os.environ
    assert {name: result[name] for name in ("changed", "packages", "kernel", "deferred")} == {
        "changed": True, "packages": 2, "kernel": KERNEL, "deferred": [],
    }  # fmt: skip
    assert (root / "where").read_text() == f"{root}\nNo\n"
    assert not (root / "etc/ssh/ssh_host_rsa_key").exists() and (root / "etc/app/key").exists()
    assert (root / layout.SHARED).read_text() == "/etc/app\n"
    assert (root / layout.SYSIMAGE_LINKS["var/lib/apt/extended_states"]).read_text() == "states"
    assert (root / "var/lib/apt/extended_states").is_symlink()
    assert not any((root / "run").iterdir()) and not any((root / "tmp").iterdir())
    assert (root / MODULES / layout.INITRAMFS).exists()


def prepare() -> bool:
    return preparing.prepare(Transaction(print, "x"), ContainerPrepare()).changed


def test_a_prepare_fills_var(root, steps):
    write_files(root, {"var/lib/apt/extended_states": "states"})  # apt replaces the link
    assert not prepare()
    assert steps == FILL
    assert (root / "var/lib/apt/extended_states").readlink() == Path(
        "../../../usr/lib/sysimage/apt/extended_states"
    )
    assert (root / "usr/lib/sysimage/apt/extended_states").read_text() == "states"


@pytest.mark.parametrize("verb", [commit, prepare])
def test_a_database_below_var_is_not_merged(root, steps, verb):
    write_files(root, {"var/lib/ucf/hashfile": "x"})
    with pytest.raises(Refused, match="below /var") as caught:
        verb()
    assert caught.value.details == ("/var/lib/ucf is a directory, and no link to /usr/lib/sysimage/ucf",)
    assert steps == [] and (root / "var/lib/ucf/hashfile").exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("booted_on_ostree", "on a running system"),
        ("booted_with_systemd", "on a running system"),
        ("usr/etc/x", "in a deployment or a tree"),
        ("", "no image of a tree"),
    ],
)
def test_it_is_refused_outside_of_a_container(root, steps, monkeypatch, where, message):
    if where.startswith("booted"):
        monkeypatch.setattr(running, where, lambda: True)
    elif where:
        write_files(root, {where: "x"})
    else:
        (root / layout.DPKG_ADMINDIR / "status").unlink()
    before = list(root.rglob("*"))
    for verb in (commit, prepare):
        with pytest.raises(Refused, match=message):
            verb()
    assert steps == [] and list(root.rglob("*")) == before


def test_it_needs_root(root, steps, monkeypatch):
    monkeypatch.setattr(places, "require_root", caller.require_root)
    monkeypatch.setattr(caller.os, "geteuid", lambda: 1000)
    with pytest.raises(NotAuthorized):
        commit()


@pytest.mark.parametrize(
    ("files", "message", "details"),
    [
        (
            {f"{layout.DPKG_ADMINDIR}/status": STATUS.format("app", "half-configured")},
            "not all packages",
            ("app is half-configured",),
        ),
        ({"data/x": "x"}, "cannot have /data", ()),
        (
            {
                f"{layout.KERNEL_MODULES}/7/kernel/x.ko": "x",
                "boot/vmlinuz-7": "x",
                "vmlinuz": "-> boot/vmlinuz-7",
            },
            "2 kernels",
            (f"{KERNEL} is of no package", "7 is of no package"),
        ),
        ({"etc/app/key": KEY}, "one machine", ("/etc/app/key: a private key",)),
    ],
)
def test_what_no_tree_can_hold_is_refused_first(root, steps, files, message, details):
    write_files(root, files)
    with pytest.raises(Refused, match=message) as caught:
        commit()
    assert (caught.value.details, steps) == (details, FILL)
    assert (root / MODULES / layout.INITRAMFS).exists()


@pytest.mark.parametrize("options", [{"shared": ("etc/x",)}, {"account_ids": "/no/such/file"}])
def test_mistakes_are_told_first(root, steps, options):
    with pytest.raises(UsageError):
        commit(**options)
    assert steps == []


# --- the initramfs


@pytest.mark.parametrize(
    ("change", "is_current"),
    [
        ({"usr/bin/other": "x"}, True),
        ({"var/lib/app/data": "x", "etc/motd": "x"}, True),
        ({"usr/bin/udevadm": "newer"}, False),
        ({"usr/lib/dracut/dracut.conf.d/x.conf": "x"}, False),
        ({"etc/modprobe.d/x.conf": "x"}, False),
        ({f"{MODULES}/kernel/x.ko": "x"}, False),
        ({f"{MODULES}/{layout.INITRAMFS_INPUTS}": "of another one\n"}, False),
    ],
)
def test_an_initramfs_is_made_anew_if_what_it_is_made_of_changed(root, steps, change, is_current):
    write_files(root, change)
    _result, told = commit()
    assert (root / MODULES / layout.INITRAMFS).exists() == is_current
    texts = [event.text for event in told if isinstance(event, events.Message)]
    assert any(KERNEL in text for text in texts) != is_current


def test_a_program_that_a_module_needs_came(root):
    setup = "check() {\n    require_binaries cryptsetup || return 1\n    return 0\n}\n"
    write_files(root, {f"{layout.DRACUT_MODULES}/90crypt/module-setup.sh": setup})
    initramfs_state.write(root, KERNEL)
    assert initramfs_state.lacking_programs(root) == ["bin/cryptsetup", "sbin/cryptsetup"]
    assert initramfs_state.is_current(root, KERNEL)
    write_files(root, {"usr/sbin/cryptsetup": "x"})
    assert initramfs_state.lacking_programs(root) == []
    assert not initramfs_state.is_current(root, KERNEL)


def test_an_initramfs_of_nobody_knows_what_is_made_anew(root):
    (root / MODULES / layout.INITRAMFS_INPUTS).unlink()
    assert not initramfs_state.is_current(root, KERNEL)


# --- what is left


def test_var_keeps_directories_and_links(root, monkeypatch):
    write_files(root, {
        "var/lib/app/data": "x", "var/lib/new/data": "x", "var/log/a.log": "x", "var/lib/link": "-> x",
        "var/cache/apt/archives/a.deb": "x", "run/.containerenv": "", "run/a/b": "x", "tmp/x": "x",
        "var/cache/apt/kept": "x",
    })  # fmt: skip
    (root / "var/lib/app").chmod(0o755)
    targets = ("run/.containerenv", "var/cache/apt/kept")
    mounts = [
        mountinfo.MountPoint(number, 1, "/", str(root / target), "tmpfs", "x", "rw", "rw")
        for number, target in enumerate(targets)
    ]
    monkeypatch.setattr(rootstate.mountinfo, "read", lambda: tuple(mounts))
    committing.empty(root)
    held = {str(path.relative_to(root)) for top in ("run", "tmp", "var") for path in (root / top).rglob("*")}
    links = {str(path) for path in layout.SYSIMAGE_LINKS}
    files = {path for path in held if (root / path).is_symlink() or not (root / path).is_dir()}
    assert files - links == {*targets, "var/run"}
    assert held >= {*links, "var/lib/app", "var/log", "var/roothome", "run/.containerenv", *targets}
    assert not held & {"var/lib/new", "var/lib/link", "run/a", "var/cache/apt/archives"}
    assert (root / "var/lib/app").stat().st_mode & 0o777 == 0o711
    before = {path: (root / path).lstat().st_ino for path in held}
    committing.empty(root)  # a second time changes nothing
    assert {path: (root / path).lstat().st_ino for path in held} == before


def test_the_bill_of_materials_is_of_the_image(root):
    committing.write_bill(root)
    assert not (root / spdx.PATH).exists()
    subject = spdx.Subject("server", "13.1", "c" * 64, 1763900000, "ID=debian\n", "apt-ostree-1")
    (root / spdx.PATH).write_bytes(oci.to_bytes(spdx.document(subject, ())))
    committing.write_bill(root)
    first = json.loads((root / spdx.PATH).read_text())
    assert [package["name"] for package in first["packages"]] == ["server", "base"]
    assert first["packages"][0]["versionInfo"] == "13.1"
    assert "c" * 64 not in json.dumps(first)
    committing.write_bill(root)
    second = json.loads((root / spdx.PATH).read_text())
    assert second["packages"] == first["packages"]
    assert second["documentNamespace"] != first["documentNamespace"]


# --- apt's hook


def hook(root: Path, moment: str) -> list[str]:
    """Run the hook with the paths of a root directory; return the calls of apt-ostree."""
    text = HOOK.read_text()
    for path in ("/run/", "/usr/", "/var/"):
        text = text.replace(f" {path}", f" {root}{path}").replace(f"={path}", f"={root}{path}")
    write_files(root, {"usr/bin/apt-ostree": f'#!/bin/sh\necho "$@" >>{root}/calls\n'})
    environment = {**os.environ, "PATH": f"{root}/usr/bin:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", text, "sh", moment], check=True, env=environment)
    calls = root / "calls"
    found = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    return found


def test_no_service_starts_while_dpkg_works(root):
    policy = root / "usr/sbin/policy-rc.d"
    policy.parent.mkdir()
    assert hook(root, "begin") == ["container prepare --quiet"]
    assert subprocess.run([policy, "x", "start"], check=False).returncode == 101
    assert hook(root, "end") == []
    assert not policy.exists()
    policy.write_text("the image's own")
    assert hook(root, "begin") == ["container prepare --quiet"]
    hook(root, "end")
    assert policy.read_text() == "the image's own"


@pytest.mark.parametrize("name", ["run/ostree-booted", "run/systemd/system/x", "usr/etc/x", "var/lib/dpkg"])
def test_apt_does_nothing_elsewhere(root, name):
    (root / "usr/sbin").mkdir()
    if name == "var/lib/dpkg":
        (root / name).unlink()
        name += "/status"
    write_files(root, {name: "x"})
    assert hook(root, "begin") == []
    assert not (root / "usr/sbin/policy-rc.d").exists()


# --- the command line


def test_the_requests_and_what_is_shown(monkeypatch, capsys):
    sent = []

    def call(request, *_words, **_options):
        sent.append(request)
        return client.Answer(
            {"changed": True, "packages": 2, "kernel": "6.12", "deferred": ["munge"]}, next_boot=False
        )

    monkeypatch.setattr(client, "call", call)
    assert main.run(["container", "commit", "--shared=/etc/a", "--shared=/etc/b", "--account-ids=f"]) == 0
    assert capsys.readouterr().out == (
        "Each machine configures itself: munge\nThe image has 2 packages, with the kernel 6.12.\n"
    )
    assert main.run(["container", "prepare", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert sent == [ContainerCommit(shared=("/etc/a", "/etc/b"), account_ids="f"), ContainerPrepare()]
