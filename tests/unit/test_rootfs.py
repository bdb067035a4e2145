"""The steps between "Debian packages in a directory" and "a tree", each on a directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from apt_ostree.core.compose import rootfs
from apt_ostree.errors import ExternalFailure, UsageError
from apt_ostree.model import layout
from apt_ostree.model.treefile import AddFile, Archive, Dracut, Script, Treefile, Units
from tests.unit.repos import IS_ROOT, write_files


@pytest.fixture(autouse=True)
def _root_gives_files_away(monkeypatch):
    if not IS_ROOT:
        monkeypatch.setattr(os, "chown", lambda *_words, **_options: None)


class Sandbox:
    """Remembers what was run in the root, and what a script's file held then."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[list[str]] = []
        self.scripts: list[str] = []

    def __call__(self, words, _what):
        self.calls.append(list(words))
        script = self.root / words[0].lstrip("/")
        if script.is_file():
            assert os.access(script, os.X_OK)
            self.scripts.append(script.read_text())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_state_of_usr_moves_into_the_tree(tmp_path):
    write_files(tmp_path, {
        "var/lib/dpkg/status": "packages", "var/lib/apt/extended_states": "states", "var/lib/other/x": "x",
    })  # fmt: skip
    rootfs.move_state(tmp_path)
    assert (tmp_path / layout.DPKG_ADMINDIR / "status").read_text() == "packages"
    for path, target in layout.SYSIMAGE_LINKS.items():
        link = tmp_path / path
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == tmp_path / target
    assert (tmp_path / "var/lib/dpkg/status").read_text() == "packages"
    assert (tmp_path / "usr/lib/sysimage/ucf").is_dir()
    assert (tmp_path / "usr/lib/sysimage/apt/extended_states").read_text() == "states"
    assert (tmp_path / "var/lib/other/x").exists()
    rootfs.move_state(tmp_path)  # a second time changes nothing
    assert (tmp_path / "var/lib/dpkg/status").read_text() == "packages"


def test_state_that_is_a_file_and_is_not_there_is_made(tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    rootfs.move_state(tmp_path)
    assert (tmp_path / "usr/lib/sysimage/apt/extended_states").is_file()


def test_files_of_the_build_machine_go(tmp_path):
    write_files(tmp_path, {"etc/hostname": "builder", "etc/hosts": "stays"})
    rootfs.drop_host_files(tmp_path)
    assert [p.name for p in (tmp_path / "etc").iterdir()] == ["hosts"]


def test_keyrings_travel_with_the_tree(tmp_path):
    root = tmp_path / "root"
    key = tmp_path / "mine.gpg"
    key.write_text("key")
    line = f"deb [signed-by={key}] http://x y z\n"
    write_files(root, {"etc/apt/sources.list": line, "etc/apt/sources.list.d/more.list": line})
    rootfs.copy_keyrings(root, [key])
    assert (root / "etc/apt/keyrings/mine.gpg").read_text() == "key"
    assert mode(root / "etc/apt/keyrings/mine.gpg") == 0o644
    for name in ("sources.list", "sources.list.d/more.list"):
        assert (root / "etc/apt" / name).read_text() == (
            "deb [signed-by=/etc/apt/keyrings/mine.gpg] http://x y z\n"
        )


# --- files


def added(source: Path, dest: str, file_mode: int | None = None) -> AddFile:
    return AddFile(source.name, dest, str(source), file_mode)


def test_files_are_added_with_modes_that_nobodys_umask_decides(tmp_path):
    root, source = tmp_path / "root", tmp_path / "source"
    root.mkdir()
    write_files(source, {"plain": "1", "bin/tool": "2", "secret": "3", "link": "-> plain"})
    (source / "plain").chmod(0o600)
    (source / "bin").chmod(0o700)
    (source / "bin/tool").chmod(0o700)
    before = os.umask(0o077)
    try:
        rootfs.add_files(root, [added(source, "/opt/all"), added(source / "secret", "/etc/secret", 0o600)])
    finally:
        os.umask(before)
    there = root / "opt/all"
    assert (mode(there), mode(there / "bin"), mode(there / "plain"), mode(there / "bin/tool")) == (
        0o755, 0o755, 0o644, 0o755,
    )  # fmt: skip
    assert (there / "link").readlink() == Path("plain")
    assert mode(root / "etc/secret") == 0o600
    if IS_ROOT:
        assert {p.lstat().st_uid for p in there.rglob("*")} == {0}


def test_what_is_there_is_replaced_and_no_link_is_written_through(tmp_path):
    root, outside, source = tmp_path / "root", tmp_path / "outside", tmp_path / "source"
    outside.write_text("mine")
    source.write_text("new")
    write_files(root, {"etc/motd": "old", "etc/link": f"-> {outside}"})
    rootfs.add_files(root, [added(source, "/etc/motd"), added(source, "/etc/link")])
    assert (root / "etc/motd").read_text() == "new"
    assert (root / "etc/link").read_text() == "new"
    assert not (root / "etc/link").is_symlink()
    assert outside.read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/usr/bin/x", "usr/bin/x"),
        ("/bin/x", "usr/bin/x"),
        ("/out/x", "tmp/x"),
        ("/up/x", "usr/x"),
        ("/chain/x", "usr/bin/x"),
        ("/usr/../x", "x"),
        ("/../../x", "x"),
        ("/link", "link"),  # the last one is replaced, not followed
    ],
)
def test_links_of_the_tree_lead_to_places_of_the_tree(tmp_path, path, place):
    (tmp_path / "usr/bin").mkdir(parents=True)
    links = {"bin": "usr/bin", "out": "/tmp", "up": "../../usr", "chain": "bin", "link": "/etc"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert rootfs.inside(tmp_path, path) == tmp_path / place


def test_links_that_go_round_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="too many links"):
        rootfs.inside(tmp_path, "/a/x")


# --- programs


def test_units_are_set_in_one_order(tmp_path):
    sandbox = Sandbox(tmp_path)
    rootfs.set_units(Units(enable=("a.service", "b.socket"), mask=("c.timer",)), sandbox)
    assert sandbox.calls == [
        ["systemctl", "--root=/", "enable", "a.service", "b.socket"],
        ["systemctl", "--root=/", "mask", "c.timer"],
    ]


def test_scripts_run_in_their_order_and_leave_nothing(tmp_path):
    root = tmp_path / "root"
    (root / "var/tmp").mkdir(parents=True)
    (tmp_path / "file").write_text("#!/usr/bin/python3\n")
    sandbox = Sandbox(root)
    scripts = [
        Script(inline="echo 1"),
        Script(file="file", path=str(tmp_path / "file")),
        Script(inline="#!/bin/bash\n2"),
    ]
    rootfs.run_scripts(root, scripts, sandbox)
    assert sandbox.scripts == [
        "#!/bin/sh\nset -eu\necho 1",
        "#!/usr/bin/python3\n",
        "#!/bin/bash\n2",
    ]
    assert not list((root / "var/tmp").iterdir())


def test_boot_configuration_is_written_where_there_is_any(tmp_path):
    rootfs.write_boot_configuration(tmp_path, Treefile())
    assert not list(tmp_path.iterdir())
    tree = Treefile(kernel_arguments=("rw", 'a="b"'), dracut=Dracut(add_modules=("crypt",)))
    rootfs.write_boot_configuration(tmp_path, tree)
    assert (tmp_path / layout.KERNEL_ARGUMENTS).read_text() == 'kargs = ["rw", "a=\\"b\\""]\n'
    assert "crypt" in (tmp_path / layout.DRACUT_ARGUMENTS).read_text()


def test_files_are_removed_and_a_missing_one_is_a_mistake(tmp_path):
    write_files(tmp_path, {"usr/share/games/a": "x", "usr/b": "x", "lib": "-> usr"})
    rootfs.remove_files(tmp_path, ["/usr/share/games", "/lib/b"])
    assert sorted(path.name for path in (tmp_path / "usr").rglob("*")) == ["share"]
    for path in ("/usr/none", "/"):
        with pytest.raises(UsageError, match="is not in the tree"):
            rootfs.remove_files(tmp_path, [path])


# --- the shape of a tree


def packages_in(root: Path) -> None:
    others = (
        "usr/bin",
        "usr/lib",
        "etc",
        "home",
        "root",
        "opt/vendor",
        "srv",
        "media",
        "mnt",
        "usr/local/bin",
    )
    for name in (*layout.TOP_DIRECTORIES, *others):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "lib").symlink_to("usr/lib")
    write_files(root, {"etc/x.conf": "x", "opt/vendor/file": "v", "root/.bashrc": "b", "boot/vmlinuz-1": "k"})


def test_the_top_level_of_a_tree(tmp_path):
    packages_in(tmp_path)
    rootfs.move_linked_directories(tmp_path)
    rootfs.make_top_level(tmp_path)
    for name, target in layout.TOP_LINKS.items():
        assert (tmp_path / name).readlink() == Path(target)
    for name, wanted in layout.TOP_DIRECTORIES.items():
        assert mode(tmp_path / name) == wanted
        assert not list((tmp_path / name).iterdir())
    assert (tmp_path / "usr/etc/x.conf").read_text() == "x"
    assert (tmp_path / "bin").readlink() == Path("usr/bin")
    assert not (tmp_path / "etc").exists()


def test_what_packages_put_into_linked_directories_moves_to_var(tmp_path):
    packages_in(tmp_path)
    rootfs.move_linked_directories(tmp_path)
    assert (tmp_path / "var/opt/vendor/file").read_text() == "v"
    assert (tmp_path / "var/roothome/.bashrc").read_text() == "b"
    assert (tmp_path / "usr/local").readlink() == Path("../var/usrlocal")
    assert (tmp_path / "var/usrlocal/bin").is_dir()
    rootfs.move_linked_directories(tmp_path)  # a second time changes nothing
    assert (tmp_path / "var/opt/vendor/file").read_text() == "v"


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/tmp")])
def test_a_tree_has_no_place_for_anything_else(tmp_path, make):
    packages_in(tmp_path)
    make(tmp_path / "strange")
    with pytest.raises(ExternalFailure, match="/strange, which a tree cannot contain"):
        rootfs.make_top_level(tmp_path)


def test_an_empty_directory_beside_usr_stays(tmp_path):
    packages_in(tmp_path)
    (tmp_path / "snap").mkdir()
    rootfs.make_top_level(tmp_path)
    assert (tmp_path / "snap").is_dir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "snap/bin").mkdir()
    with pytest.raises(ExternalFailure, match="/snap, which a tree cannot contain"):
        rootfs.make_top_level(tmp_path)


# --- facts


def test_the_kernel_of_a_tree_is_the_one_with_an_image(tmp_path):
    assert rootfs.kernel_of(tmp_path) is None
    write_files(tmp_path, {f"{layout.KERNEL_MODULES}/6.12/vmlinuz": "k"})
    (tmp_path / layout.KERNEL_MODULES / "9.9").mkdir()  # modules without a kernel
    assert rootfs.kernel_of(tmp_path) == "6.12"


def test_release_files_are_read(tmp_path):
    lists = {"a_InRelease": "1", "b_Release": "2", "b_Release.gpg": "3", "c_Packages": "4"}
    write_files(tmp_path, lists)
    assert rootfs.read_releases(tmp_path) == {"a_InRelease": "1", "b_Release": "2"}


def test_the_fingerprint_is_of_contents_and_not_of_places(tmp_path):
    def fingerprint(place: Path) -> dict[str, str]:
        keyring, script = str(place / "key.gpg"), str(place / "script")
        tree = Treefile(
            archives=(Archive("s", mirror="http://x/", signed_by="k", keyring=keyring),),
            add_files=(added(place / "dir", "/d"),),
            postprocess=(Script(file="script", path=script), Script(inline="x")),
        )
        return dict(rootfs.fingerprint_inputs(tree))

    for name in ("one", "two"):
        files = {"dir/a": "1", "dir/link": "-> a", "key.gpg": "key", "script": "#!/bin/sh\n"}
        write_files(tmp_path / name, files)
    first = fingerprint(tmp_path / "one")
    assert first == fingerprint(tmp_path / "two")
    assert first.keys() == {"signed-by:k", "/d:a", "/d:link", "postprocess[0]", "postprocess[1]"}
    (tmp_path / "one/dir/a").chmod(0o755)
    (tmp_path / "one/key.gpg").write_text("another")
    again = fingerprint(tmp_path / "one")
    assert {key for key in first if first[key] != again[key]} == {"/d:a", "signed-by:k"}
