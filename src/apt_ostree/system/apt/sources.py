"""The archives and keys of a deployment that is made, where its /etc/apt will not be the running one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import apt_pkg

from apt_ostree.model.filestate import FileState
from apt_ostree.system import files
from apt_ostree.system.apt.config import changed

_PLACE = Path("/run/apt-ostree/sources")
#: A key that a source names (sources.list(5), Signed-By).
_KEY = re.compile(r"/usr/[^\s,\]]+\.(?:gpg|pgp|asc)")


@contextmanager
def of_deployment(states: Mapping[str, FileState], root: Path) -> Iterator[None]:
    """Have libapt read /etc/apt with these states inside the block, and the keys of the build root's /usr.

    states: path below /etc -> state, where it differs from the running one.
    root: the build root.
    """
    with _directory() as top:
        etc = Path(apt_pkg.config.find_dir("Dir::Etc"))
        shutil.copytree(etc, top / etc.name, symlinks=True)
        gone = [path for path in states if states[path].type == "absent"]
        order = [*sorted(states.keys() - {*gone}), *sorted(gone, reverse=True)]
        files.write_states([(top / path, states[path]) for path in order])
        for source in _source_files(top / etc.name):
            source.write_text(_KEY.sub(lambda key: _copied(key[0], root, top), source.read_text()))
        for directory in (top.parent, top):  # libapt checks signatures as another user
            directory.chmod(0o755)
        with changed({"Dir::Etc": f"{top / etc.name}/"}):
            yield


@contextmanager
def _directory() -> Iterator[Path]:
    """Make the directory, which nobody else can read while passwords are copied, and remove it."""
    _PLACE.parent.mkdir(exist_ok=True)
    shutil.rmtree(_PLACE, ignore_errors=True)  # of a call that was killed; there is one at a time
    _PLACE.mkdir(mode=0o700)
    try:
        yield _PLACE
    finally:
        shutil.rmtree(_PLACE)


def _source_files(etc: Path) -> list[Path]:
    paths = [etc / "sources.list", *(etc / "sources.list.d").glob("*.list")]
    paths += (etc / "sources.list.d").glob("*.sources")
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def _copied(path: str, root: Path, top: Path) -> str:
    """Copy a key of the build root to where libapt's user can read it; return its path.

    A key that the build root does not have stays the running system's.
    """
    key = root / path.lstrip("/")
    if not key.is_file():
        return path
    copy = top / "keys" / path.lstrip("/")
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(key, copy)
    return str(copy)
