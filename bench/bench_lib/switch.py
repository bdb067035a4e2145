"""The switch alone against `systemd-sysext refresh` of the same content, while readers look on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apt_ostree.system import mounts, usrview
from bench_lib import product
from bench_lib.measure import interleaved, run
from bench_lib.readers import readers

#: Only the layer, and the extension, have it.
_FILE = "/usr/share/doc/tree/copyright"
_HOME = Path("/sysroot/ostree/apt-ostree/bench")
_EXTENSION = Path("/var/lib/extensions/bench")
#: Seconds between two switches, so that readers run undisturbed in between.
_PAUSE = 0.01


def measure(blocks: int, switches: int, refreshes: int) -> dict[str, Any]:
    """Return seconds of each switch and refresh, and what the readers saw.

    In every block of either side four readers loop over open and read of a file that only the layer has.
    idle: the readers alone. refresh_start: what starting the peer's program takes.
    """
    found: dict[str, Any] = {
        key: [] for key in ("swap", "show", "refresh", "refresh_start", "ours", "peer", "idle")
    }
    product.install(product.FORTY)
    product.apply_live()
    layers = sorted(Path("/sysroot/ostree/apt-ostree/layers").iterdir())
    booted = product.booted_directory()
    mounts.enter_private_namespace()
    run("mount", "-o", "remount,bind,rw", "/sysroot")
    _HOME.mkdir(mode=0o700)
    try:
        layer = _HOME / "layer"
        run("cp", "--archive", "--link", layers[0], layer)
        _make_extension(layer)
        product.undo_live()
        product.drop_pending()
        view = _View((layer, booted / "usr"), found)

        def ours() -> None:
            view.block(switches)

        def peer() -> None:
            _refresh_block(refreshes, found)

        for _number in interleaved(blocks, ours, peer):
            pass
    finally:
        shutil.rmtree(_HOME)
        shutil.rmtree(_EXTENSION, ignore_errors=True)
    return found


class _View:
    """Shows the layer again and again, as a live update would."""

    def __init__(self, lowers: tuple[Path, Path], found: dict[str, Any]) -> None:
        self._lowers, self._found = lowers, found
        self._generation = 1_000_000

    def block(self, switches: int) -> None:
        self._show()
        try:
            with readers(self._found["idle"], (_FILE,)):
                time.sleep(1)
            with readers(self._found["ours"], (_FILE,), switches), _swap_timed(self._found["swap"]):
                for _number in range(switches):
                    self._found["show"].append(self._show())
                    time.sleep(_PAUSE)
        finally:
            usrview.withdraw()

    def _show(self) -> float:
        self._generation += 1
        scratch = _HOME / "scratch"
        scratch.mkdir()
        began = time.perf_counter()
        usrview.show(self._generation, self._lowers, scratch=scratch)
        seconds = time.perf_counter() - began
        scratch.rmdir()
        return seconds


def _refresh_block(refreshes: int, found: dict[str, Any]) -> None:
    with mounts.in_namespace_of(1):
        run("systemd-sysext", "merge")
    try:
        with readers(found["peer"], (_FILE,), refreshes), mounts.in_namespace_of(1):
            for _number in range(refreshes):
                began = time.perf_counter()
                run("systemd-sysext", "refresh")
                found["refresh"].append(time.perf_counter() - began)
                time.sleep(_PAUSE)
                began = time.perf_counter()
                run("systemd-sysext", "--version")
                found["refresh_start"].append(time.perf_counter() - began)
    finally:
        with mounts.in_namespace_of(1):
            run("systemd-sysext", "unmerge")


def _make_extension(layer: Path) -> None:
    """Make an extension of the layer's content; whiteouts and marks of overlayfs stay out of it."""
    shutil.rmtree(_EXTENSION, ignore_errors=True)
    usr = _EXTENSION / "usr"
    _EXTENSION.mkdir(parents=True)
    run("cp", "--archive", layer, usr)
    for path in usr.rglob("*"):
        if path.is_char_device():
            path.unlink()
    release = usr / "lib/extension-release.d/extension-release.bench"
    release.parent.mkdir(parents=True)
    release.write_text("ID=_any\n")


@contextmanager
def _swap_timed(found: list[float]) -> Iterator[None]:
    """Note the seconds of the swap inside `usrview.show`: from the first system call to the last."""
    swap = usrview._swap

    def noted(*arguments: Any, **options: Any) -> None:
        began = time.perf_counter()
        swap(*arguments, **options)
        found.append(time.perf_counter() - began)

    usrview._swap = noted
    try:
        yield
    finally:
        usrview._swap = swap
