"""This checkout's code as files of a tree, to be committed on top of a base image."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed_lib.common import CACHE, CHECKOUT, hash_of_files, run

_INPUTS = ("src", "data", "man", "debian", "pyproject.toml")
_LAUNCHER = "#!/usr/bin/python3\nfrom apt_ostree.cli.main import main\n\nmain()\n"


def source_key() -> str:
    """Return a key for the content of everything that makes up the product, committed or not."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *_INPUTS,
                 cwd=CHECKOUT)  # fmt: skip
    return hash_of_files(CHECKOUT, [name for name in listed.split("\0") if name])


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Lay the code out as its package would, without building the package."""
    with TemporaryDirectory(dir=CACHE) as name:
        tree = Path(name)
        tree.chmod(0o755)
        modules = tree / "usr/lib/python3/dist-packages/apt_ostree"
        shutil.copytree(CHECKOUT / "src/apt_ostree", modules, ignore=shutil.ignore_patterns("__pycache__"))
        run("/usr/bin/python3", "-m", "compileall", "-q", "-s", tree, "-p", "/", modules)
        _write(tree / "usr/bin/apt-ostree", _LAUNCHER, 0o755)
        yield tree


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
