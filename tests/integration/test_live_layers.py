"""Layers and the switch on real OSTree repositories and real overlayfs, in a private mount namespace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.integration.trees import (
    ENTRIES,
    MODES,
    NAMES,
    TREES,
    build,
    describe,
    mounted,
    new_case,
    numbers,
)

from apt_ostree.model.treediff import flatten
from apt_ostree.system import mountinfo, mounts, usrview
from apt_ostree.system.ostree import commit, diff, layers, upper_commit

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, so it needs root")
_limits = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _fsck(repo: Path) -> None:
    subprocess.run(["ostree", "fsck", "--quiet", f"--repo={repo}"], check=True, capture_output=True)


@given(TREES, TREES)
@_limits
def test_a_layer_turns_one_tree_into_another(disk: Path, old, new):
    work, repo, (first, second) = new_case(disk, old, new)
    difference = diff.diff_commits(repo, first, second)
    repo.checkout(first, work, "old", subpath="/usr")
    repo.checkout(second, work, "new", subpath="/usr")
    if difference is None:
        assert describe(work / "old") == describe(work / "new")
        return
    layer = layers.check_out(repo, layers.write_layer(repo, difference, subject="layer"), work / "layers")
    merged = mounted([layer, work / "old"], work)
    try:
        assert describe(merged) == describe(work / "new")
        assert describe(work / "old") != describe(work / "new")
        assert list(flatten(difference)) or difference.own_change
    finally:
        mounts.umount(merged)
    _fsck(work / "repo")
    shutil.rmtree(work)


_paths = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
_edits = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _paths, ENTRIES),
        st.tuples(st.just("remove"), _paths),
        st.tuples(st.just("mode"), _paths, MODES),
        st.tuples(st.just("append"), _paths),
        st.tuples(st.just("move"), _paths, _paths),
    ),
    max_size=8,
)


def _edit(top: Path, words) -> None:
    path = top / words[1]
    target = top / words[2] if words[0] == "move" else path
    parents = {*path.parents, *target.parents}
    if any(above.is_symlink() for above in parents if above.is_relative_to(top)):
        return  # links may lead out of the tree, or in a circle
    if words[0] in ("put", "move"):
        if not target.parent.is_dir():
            return
        if words[0] == "put":
            _remove(path)
            build(words[2], path)
        elif path.lstat() and not target.is_relative_to(path) and not path.is_relative_to(target):
            _remove(target)
            shutil.move(path, target)
    elif words[0] == "remove":
        _remove(path)
    elif path.lstat() and not path.is_symlink():
        if words[0] == "mode":
            path.chmod(words[2])
        elif path.is_file():
            with path.open("a") as stream:
                stream.write("more")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@given(TREES, _edits)
@example(("dir", 0o755, 0, {}), [("put", "a", ("link", "a")), ("remove", "a/a")])
@_limits
def test_an_upper_commits_to_what_the_merged_view_shows(disk: Path, tree, edits):
    work, repo, (base,) = new_case(disk, tree)
    repo.checkout(base, work, "old", subpath="/usr")
    for name in ("upper", "work"):
        (work / name).mkdir()
    info = (work / "old").stat()
    os.chown(work / "upper", info.st_uid, info.st_gid)
    (work / "upper").chmod(stat.S_IMODE(info.st_mode))
    merged = mounted([work / "old"], work, (str(work / "upper"), str(work / "work")))
    full = work / "full"
    try:
        for words in edits:
            try:
                _edit(merged, words)
            except (FileNotFoundError, NotADirectoryError):
                continue
        full.mkdir()
        subprocess.run(["cp", "-a", merged, full / "usr"], check=True)
    finally:
        mounts.umount(merged)
    whole = commit.commit_directory(work / "repo", full, "full", subject="x", timestamp=0, metadata={})
    ours = upper_commit.commit_upper(repo, base, work / "upper", subject="x", metadata={})
    assert diff.diff_commits(repo, whole.checksum, ours) is None
    assert repo.tree_checksums(ours)[0] == repo.tree_checksums(whole.checksum)[0]
    _fsck(work / "repo")
    shutil.rmtree(work)


# --- the switch

_FILES = 20
_READER = Path(__file__).parent / "programs/read_usr.py"


def _generation(top: Path, number: int) -> Path:
    usr = top / f"generation{number}"
    (usr / "share/package").mkdir(parents=True)
    (usr / "share/big").write_text(str(number) * 200_000)
    (usr / "local/share").mkdir(parents=True)
    for item in range(_FILES):
        (usr / f"share/package/file{item}").write_text(f"{number}\n")
    return usr


@pytest.fixture
def usr(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A /usr of our own, in a namespace that the view takes for PID 1's."""
    top = disk / f"switch{next(numbers)}"
    top.mkdir()
    mounts.mount("none", top, "tmpfs", data="mode=755")
    _generation(top, 0).rename(top / "usr")
    (top / "scratch").mkdir()
    monkeypatch.setattr(usrview, "USR", str(top / "usr"))
    monkeypatch.setattr(usrview, "PID1", threading.get_native_id())  # tests may run in another thread
    yield top / "usr"
    mounts.umount(top, detach=True)


def _own_peer_group(usr: Path) -> None:
    mounts.mount(str(usr), usr, flags=mounts.MS_BIND)
    mounts.mount("none", usr, flags=mounts.MS_PRIVATE)


def _stack(usr: Path) -> int:
    return len(mountinfo.stack_at(mountinfo.read(), str(usr)))


def _show(usr: Path, number: int, layer: Path, base: Path) -> None:
    usrview.show(number, [layer, base], scratch=usr.parent / "scratch")


def _number(usr: Path) -> str:
    return (usr / "share/package/file0").read_text().strip()


@contextlib.contextmanager
def _reading(usr: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Have processes read without a pause; none is left afterwards."""
    command = [sys.executable, _READER, usr, str(_FILES)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for reader in readers:
            assert reader.stdout and reader.stdout.readline() == "reading\n"
        yield readers
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def test_readers_never_miss_a_file_and_never_see_a_mixture(usr: Path):
    _own_peer_group(usr)
    base = _generation(usr.parent, 3)
    directories = [_generation(usr.parent, number) for number in (1, 2)]
    with _reading(usr) as readers:
        for number in range(1, 201):
            _show(usr, number, directories[number % 2], base)
        results = []
        for reader in readers:
            reader.send_signal(signal.SIGTERM)
            results.append(json.loads(reader.communicate(timeout=60)[0]))
    assert all(result["reads"] > 50 for result in results), results
    assert [(result["failed"], result["mixed"]) for result in results] == [(0, 0)] * 4
    assert _stack(usr) == 2 and usrview.generation() == 200
    usrview.withdraw()
    assert _stack(usr) == 1 and _number(usr) == "0"


@pytest.mark.parametrize("shared", [False, True], ids=["beneath", "stacked"])
def test_switching_and_withdrawing(usr: Path, shared: bool):
    """In the peer group of its parent, /usr cannot be mounted beneath: then views are stacked."""
    if shared:
        mounts.mount("none", usr.parent, flags=mounts.MS_SHARED)
        mounts.mount(str(usr), usr, flags=mounts.MS_BIND)
    else:
        _own_peer_group(usr)
    base = _generation(usr.parent, 3)
    for number in (1, 2, 4):
        _show(usr, number, _generation(usr.parent, number), base)
        assert _number(usr) == str(number) and usrview.generation() == number
    assert set(usrview.stacked()) >= {4}
    assert shared or usrview.stacked() == (4,)
    with pytest.raises(OSError, match="Read-only"):
        (usr / "share/new").write_text("x")
    usrview.withdraw()
    assert usrview.stacked() == () and _number(usr) == "0"


def test_einval_of_move_mount_falls_back_to_stacking(usr: Path, monkeypatch: pytest.MonkeyPatch):
    """As on Linux before 6.5: the real call with a flag it does not know answers EINVAL, too."""
    _own_peer_group(usr)
    monkeypatch.setattr(mounts, "MOVE_MOUNT_BENEATH", 0x40000000)
    base = _generation(usr.parent, 3)
    for number in (1, 2):
        _show(usr, number, _generation(usr.parent, number), base)
    assert usrview.stacked() == (1, 2) and _number(usr) == "2"


def test_submounts_come_along(usr: Path):
    _own_peer_group(usr)
    base = _generation(usr.parent, 3)
    mounts.mount("none", usr / "local/share", "tmpfs", data="mode=755")
    (usr / "local/share/deep").mkdir()
    mounts.mount("none", usr / "local/share/deep", "tmpfs", data="mode=755")
    (usr / "local/share/deep/file").write_text("there")
    for number in (1, 2):
        _show(usr, number, _generation(usr.parent, number), base)
        assert (usr / "local/share/deep/file").read_text() == "there"
        assert _number(usr) == str(number)
        assert usrview.submounts() == (str(usr / "local/share"),)
    (usr / "local/share/deep/later").write_text("written through the view")
    usrview.withdraw()
    assert (usr / "local/share/deep/later").exists()


def test_a_single_directory_can_be_shown(usr: Path):
    _own_peer_group(usr)
    usrview.show(1, [_generation(usr.parent, 1)], scratch=usr.parent / "scratch")
    assert _number(usr) == "1" and describe(usr) == describe(usr.parent / "generation1")


def test_an_unlocked_view_is_writable_and_keeps_its_edits(usr: Path):
    _own_peer_group(usr)
    base = _generation(usr.parent, 3)
    for number in (1, 2):
        for name in ("upper", "work"):
            (usr.parent / f"{name}{number}").mkdir()
    first, second = ((usr.parent / f"upper{n}", usr.parent / f"work{n}") for n in (1, 2))
    one = _generation(usr.parent, 1)
    usrview.show(1, [one, base], scratch=usr.parent / "scratch", upper=first, read_only=False)
    (usr / "share/edit").write_text("mine")
    (usr / "share/package/file1").unlink()
    usrview.show(2, [one, first[0], base], scratch=usr.parent / "scratch", upper=second, read_only=False)
    assert (usr / "share/edit").read_text() == "mine"
    (usr / "share/late").write_text("x")
    assert (second[0] / "share/late").exists() and not (first[0] / "share/late").exists()


_HELD = Path(__file__).parent / "programs/run_held.py"
_NOBODY = "65534"


class _Holder:
    """A process that has a directory open, and runs a setuid program in it as nobody."""

    def __init__(self, directory: Path, *, service: bool = False) -> None:
        own = ("unshare", "--mount", "--propagation=slave") if service else ()
        command = [*own, sys.executable, str(_HELD), str(directory)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "opened"

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def euid(self) -> str:
        assert self._process.stdin
        print("run", file=self._process.stdin, flush=True)
        return self._line()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.parametrize("beneath", [True, False])
def test_programs_of_covered_mounts_gain_no_privileges(
    usr: Path, monkeypatch: pytest.MonkeyPatch, beneath: bool
):
    """By no directory that was open before, also in the namespace of a service, until it is shown again."""
    if not beneath:  # as on Linux before 6.5
        monkeypatch.setattr(mounts, "MOVE_MOUNT_BENEATH", 0x40000000)
    layers = [_generation(usr.parent, number) for number in (1, 2)]
    for tree in (usr, *layers):
        (tree / "bin").mkdir()
        shutil.copy("/usr/bin/id", tree / "bin")
        (tree / "bin/id").chmod(0o4755)
    _own_peer_group(usr)
    mounts.mount("none", usr, flags=mounts.MS_SHARED)  # as systemd has it
    base = _generation(usr.parent, 3)
    with contextlib.ExitStack() as stack:

        def holder(*, service: bool = False) -> _Holder:
            made = _Holder(usr / "bin", service=service)
            stack.callback(made.end)
            return made

        booted = [holder(), holder(service=True)]
        assert [held.euid() for held in booted] == ["0", "0"]
        _show(usr, 1, layers[0], base)
        first = [holder(), holder(service=True)]
        assert [held.euid() for held in (*booted, *first)] == [_NOBODY, _NOBODY, "0", "0"]
        _show(usr, 2, layers[1], base)
        assert [held.euid() for held in (*booted, *first)] == [_NOBODY] * 4
        assert holder().euid() == "0" and holder(service=True).euid() == "0"
        usrview.withdraw()
        assert [held.euid() for held in (*booted, holder(), holder(service=True))] == ["0"] * 4
        assert [held.euid() for held in first] == [_NOBODY] * 2
