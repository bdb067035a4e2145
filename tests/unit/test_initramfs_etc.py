"""Files of /etc in the initramfs: which paths are accepted, the archive, and where it goes in an image."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from apt_ostree.core.build import initramfs_etc
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import cpio
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.initramfs_etc import parents, path_of, reasons_against, tracked_after

DIRECTORY = FileState("directory", 0o755)
STATES = {
    "etc": DIRECTORY,
    "etc/fx.d": FileState("directory", 0o750, 5, 6),
    "etc/fx.d/secret": FileState("file", 0o640, 5, 6, b"x" * 5),
    "etc/fx.d/empty": FileState("file", 0o644),
    "etc/fx": FileState("symlink", 0o777, content=b"fx.d/secret"),
}


# --- paths


@pytest.mark.parametrize(
    ("given", "path"),
    [("/etc/a", "/etc/a"), ("/etc//a/./b/", "/etc/a/b"), ("/etc/a b=c", "/etc/a b=c")],
)
def test_paths_are_written_in_one_way(given: str, path: str):
    assert path_of(given) == path


@pytest.mark.parametrize(
    "given",
    [
        "",
        "etc/a",
        "/etc",
        "/etc/",
        "/usr/a",
        "/etcetera/a",
        "/etc/../usr",
        "/etc/a/../b",
        "/etc/a;b",
        "/etc/a\n",
    ],
)
def test_other_paths_are_refused_by_name(given: str):
    with pytest.raises(UsageError) as caught:
        path_of(given)
    assert repr(given) in caught.value.message


def test_what_is_tracked_after_a_change():
    def after(*track: str, untrack: tuple[str, ...] = (), untrack_all: bool = False) -> tuple[str, ...]:
        return tracked_after(("/etc/b", "/etc/c"), track=track, untrack=untrack, untrack_all=untrack_all)

    assert after("/etc/a", "/etc/b/") == ("/etc/a", "/etc/b", "/etc/c")
    assert after(untrack=("/etc//c", "/etc/z")) == ("/etc/b",)
    assert after("/etc/a", untrack_all=True) == ("/etc/a",)
    assert after(untrack_all=True) == ()


def test_reasons_against_a_path():
    states = {
        "/etc": DIRECTORY, "/etc/link": FileState("symlink", content=b"dir"), "/etc/dir": DIRECTORY,
        "/etc/dir/socket": FileState("other"), "/etc/file": FileState("file"),
    }  # fmt: skip

    def reasons(path: str) -> list[str]:
        below = [(name, state) for name, state in states.items() if name.startswith(f"{path}/")]
        return [*reasons_against(path, lambda name: states.get(name, ABSENT), lambda _path: below)]

    assert reasons("/etc/file") == reasons("/etc/link") == []
    assert reasons("/etc/none") == ["/etc/none does not exist"]
    assert reasons("/etc/dir") == reasons("/etc/dir/socket")
    assert reasons("/etc/dir") == ["/etc/dir/socket is no file, directory or symlink"]
    assert reasons("/etc/link/file") == ["/etc/link is a symlink; give the path that it leads to"]
    assert parents("/etc/a/b") == ("/etc", "/etc/a")


# --- the archive


def test_the_archive_is_what_cpio_makes_of_it(tmp_path: Path):
    """GNU cpio unpacks it, with modes and contents; all is root's, and of no time."""
    archive = cpio.archive(STATES)
    assert len(archive) % 4 == 0 and archive == cpio.archive(dict(reversed(STATES.items())))
    command = ["cpio", "--extract", "--quiet", "--make-directories"]
    subprocess.run(command, cwd=tmp_path, input=archive, check=True)
    assert (tmp_path / "etc/fx.d/secret").read_bytes() == b"x" * 5
    assert (tmp_path / "etc/fx.d/empty").read_bytes() == b""
    assert os.readlink(tmp_path / "etc/fx") == "fx.d/secret"
    assert (tmp_path / "etc/fx.d").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "etc/fx.d/secret").stat().st_mode & 0o777 == 0o640
    command = ["cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet"]
    zone = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    listing = subprocess.run(command, input=archive, stdout=subprocess.PIPE, check=True, env=zone).stdout
    rows = [line.split(None, 8) for line in listing.decode().splitlines()]
    names = ["etc", "etc/fx -> fx.d/secret", "etc/fx.d", "etc/fx.d/empty", "etc/fx.d/secret"]
    assert [row[8] for row in rows] == names
    assert {(row[2], row[3], row[7]) for row in rows} == {("0", "0", "1970")}


@pytest.mark.parametrize("size", range(9))
def test_the_archive_begins_at_a_multiple_of_four_after_zeros(size: int):
    padding = cpio.padding(size)
    assert (size + len(padding)) % 4 == 0 and 4 <= len(padding) < 8 and not any(padding)


# --- images


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with an image; what is done inside a root is done in it."""
    modules = tmp_path / "usr/lib/modules/6.1"
    modules.mkdir(parents=True)
    (modules / "initramfs.img").write_bytes(b"image")
    monkeypatch.setattr(initramfs_etc, "_MODULES", modules.parent)
    monkeypatch.setattr(initramfs_etc.confined, "call", lambda _root, work, run: work(run))
    return tmp_path


def test_an_archive_follows_the_image_and_is_taken_away_again(root: Path):
    image = root / "usr/lib/modules/6.1/initramfs.img"
    for archive in (b"first", b"second"):
        initramfs_etc.strip(root)
        initramfs_etc.append(root, archive)
        assert image.read_bytes() == b"image" + bytes(7) + archive
        assert image.stat().st_mode & 0o777 == 0o600
    initramfs_etc.strip(root)
    assert image.read_bytes() == b"image" and [*image.parent.iterdir()] == [image]
    initramfs_etc.append(root, b"")
    assert image.read_bytes() == b"image" and [*image.parent.iterdir()] == [image]


def test_a_root_without_an_image_is_refused(root: Path):
    (root / "usr/lib/modules/6.1/initramfs.img").unlink()
    with pytest.raises(Refused, match="no initramfs"):
        initramfs_etc.append(root, b"x")


def test_what_is_missing_is_refused_by_name():
    with pytest.raises(Refused, match="/etc/fx-none does not exist"):
        initramfs_etc.require_usable(("/etc/hostname", "/etc/fx-none"))
    with pytest.raises(Refused) as caught:
        initramfs_etc.require_usable(("/etc/fx-none", "/etc/fx-nothing"))
    assert len(caught.value.details) == 2
