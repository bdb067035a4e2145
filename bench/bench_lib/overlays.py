"""Overlays against `systemd-sysext`: many small ones, one with many files, and what they take on disk.

The two sides never show at the same time, for one would lie on the other: each has boots of its own.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_lib import product
from bench_lib.measure import BenchError, flush, interleaved, run, say, timed
from bench_lib.readers import readers

_COUNT, _OWN, _SHARED, _COMMON = 50, 180, 20, 5
_SOURCES = Path("/var/lib/bench/overlays")
_EXTENSIONS = Path("/var/lib/extensions")
_PARKED = Path("/var/lib/bench/extensions")
_SHOWN = Path("/usr/share/bench")
_SERVICES = {"ours": "apt-ostree-recover.service", "peer": "systemd-sysext.service"}
#: The one that is moved and switched, and another name of its extension, which puts it on top.
_ONE, _TOP = "b25", "z25"
_REPO = ("/sysroot/ostree/repo", "/sysroot/ostree/apt-ostree", "/var/lib/apt-ostree")


# --- many overlays


def prepare(side: str) -> None:
    """Let a side alone show something at the next boot; the caller reboots."""
    other = "peer" if side == "ours" else "ours"
    run("systemctl", "unmask", _SERVICES[side])
    run("systemctl", "mask", _SERVICES[other])
    if side == "peer":
        run("systemctl", "enable", _SERVICES[side])


def create(side: str) -> list[float]:
    """Make what a side shows; return the seconds of each overlay, or of copying and refreshing."""
    _write_sources()
    makers = {"ours": _create_ours, "peer": _create_peer}
    return [makers[side](number) for number in range(_COUNT)]


def measure(side: str, rounds: int, refreshes: int) -> dict[str, Any]:
    """Return seconds of the boot's service and of each command, and what readers missed of reordering."""
    found: dict[str, Any] = {key: [] for key in ("list", "reorder", "off", "on", "readers")}
    found["boot"] = [_seconds_of_service(_SERVICES[side])]
    acts = _ours() if side == "ours" else _peer()
    for number in range(rounds):
        say(f"overlays, {side}: round {number + 1} of {rounds}")
        for key in ("list", "up", "down", "off", "on"):
            found["reorder" if key in ("up", "down") else key].append(acts[key]())
    paths = [str(_SHOWN / f"{number:02}/000") for number in range(_COUNT)]
    paths += [str(_SHOWN / f"shared/common-{number}") for number in range(_COMMON)]
    with readers(found["readers"], paths, 2 * refreshes, reading=False):
        for _number in range(refreshes):
            acts["up"]()
            acts["down"]()
    return found


def _write_sources() -> None:
    if _SOURCES.exists():
        return
    for number in range(_COUNT):
        top = _SOURCES / f"b{number:02}"
        own = [f"{number:02}/{file:03}" for file in range(_OWN)]
        shared = [f"shared/{number:02}-{file}" for file in range(_COMMON, _SHARED)]
        # The same paths in all of them, so that their order matters.
        _write_files(top, [*own, *shared, *(f"shared/common-{file}" for file in range(_COMMON))], number)


def _write_files(top: Path, names: list[str], number: int) -> None:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(f"{name} of overlay {number}\n" * 20)


def _usroverlay(*words: str) -> float:
    return timed("apt-ostree", "usroverlay", "-y", "-q", *words)


def _create_ours(number: int) -> float:
    name = f"b{number:02}"
    return _usroverlay("--create", f"--name={name}", f"--add={_SHOWN}", f"--from={_SOURCES / name}")


def _create_peer(number: int) -> float:
    name = f"b{number:02}"
    flush()
    began = time.perf_counter()
    target = _EXTENSIONS / name / "usr/share/bench"
    target.parent.mkdir(parents=True)
    run("cp", "--archive", _SOURCES / name, target)
    release = _EXTENSIONS / name / "usr/lib/extension-release.d" / f"extension-release.{name}"
    release.parent.mkdir(parents=True)
    release.write_text("ID=_any\n")
    run("systemd-sysext", "refresh")
    return time.perf_counter() - began


def _ours() -> dict[str, Callable[[], float]]:
    return {
        "list": lambda: timed("apt-ostree", "usroverlay", "--list"),
        "up": lambda: _usroverlay(f"--name={_ONE}", "--set-priority=90"),
        "down": lambda: _usroverlay(f"--name={_ONE}", "--set-priority=50"),
        "off": lambda: _usroverlay(f"--disable={_ONE}"),
        "on": lambda: _usroverlay(f"--enable={_ONE}"),
    }


def _peer() -> dict[str, Callable[[], float]]:
    """Return the peer's ways: an extension's place is its name, and what is not in the directory is off."""
    _PARKED.mkdir(parents=True, exist_ok=True)
    return {
        "list": lambda: timed("systemd-sysext", "list"),
        "up": lambda: _refreshed(lambda: _rename(_ONE, _TOP)),
        "down": lambda: _refreshed(lambda: _rename(_TOP, _ONE)),
        "off": lambda: _refreshed(lambda: (_EXTENSIONS / _ONE).rename(_PARKED / _ONE)),
        "on": lambda: _refreshed(lambda: (_PARKED / _ONE).rename(_EXTENSIONS / _ONE)),
    }


def _refreshed(change: Callable[[], object]) -> float:
    flush()
    began = time.perf_counter()
    change()
    run("systemd-sysext", "refresh")
    return time.perf_counter() - began


def _rename(old: str, new: str) -> None:
    releases = _EXTENSIONS / old / "usr/lib/extension-release.d"
    (releases / f"extension-release.{old}").rename(releases / f"extension-release.{new}")
    (_EXTENSIONS / old).rename(_EXTENSIONS / new)


def _seconds_of_service(name: str) -> float:
    """Return how long a service's program ran at this boot, by systemd's clock."""
    keys = [f"ExecMain{event}TimestampMonotonic" for event in ("Start", "Exit")]
    began, ended = (int(run("systemctl", "show", "--value", f"--property={key}", name)) for key in keys)
    if not (_SHOWN / "00/000").exists() or ended <= began:
        raise BenchError(f"{name} has shown nothing at this boot")
    return (ended - began) / 1e6


# --- one with many files


def measure_sizes(few: int, many: int, rounds: int) -> dict[str, Any]:
    """Return the steps of switching an overlay on and off, for two numbers of files, in turns."""
    found: dict[str, Any] = {}
    for files in (few, many):
        top = _SOURCES.parent / f"files-{files}"
        _write_files(top, [f"{files}-{file // 100:02}/{file:04}" for file in range(files)], files)
        _usroverlay("--create", f"--name=f{files}", f"--add={_SHOWN}", f"--from={top}")
        _usroverlay(f"--disable=f{files}")
        shutil.rmtree(top)
        found[str(files)] = {"on": [], "off": []}

    def side(files: int) -> Callable[[], None]:
        def switch() -> None:
            for key in ("on", "off"):
                step = product.steps("usroverlay", name=f"f{files}", enable=key == "on")
                found[str(files)][key].append(step)

        return switch

    for number in interleaved(rounds, side(few), side(many)):
        say(f"overlays, number of files: round {number + 1} of {rounds}")
    return found


# --- bytes


def measure_disk(generations: int) -> dict[str, Any]:
    """Return what overlays of new files take on disk, and what each further generation takes."""
    found: dict[str, Any] = {"overlays": []}
    _usroverlay("--create", "--name=first", f"--add={_SHOWN}/first", "--from=/etc/os-release")
    for number, (files, size) in enumerate(((1, 1000), (200, 1000), (1, 1_000_000))):
        top = _SOURCES.parent / f"disk-{number}"
        top.mkdir(parents=True)
        for file in range(files):
            (top / str(file)).write_bytes(os.urandom(size))
        before = _used()
        _usroverlay("--create", f"--name=d{number}", f"--add={_SHOWN}/{number}", f"--from={top}")
        found["overlays"].append({"files": files, "bytes": files * size, "used": _used() - before})
        shutil.rmtree(top)
    before = _used()
    for _number in range(generations // 2):
        _usroverlay("--disable=d1")
        _usroverlay("--enable=d1")
    found["generation"] = {"bytes": 200_000, "used": (_used() - before) / generations}
    return found


def _used() -> int:
    """Return the bytes that the repository, the layers and the record take, hardlinks counted once."""
    flush()
    present = [path for path in _REPO if Path(path).exists()]
    return int(run("du", "--summarize", "--total", "--block-size=1", *present).split()[-2])
