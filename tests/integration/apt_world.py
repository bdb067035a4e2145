"""A small world of packages for the real resolver: a dpkg database, archives, and what is to be resolved."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"
#: libapt's configuration belongs to a process, so the resolver runs in one of its own.
_PROGRAM = Path(__file__).parent / "programs/resolve.py"
#: Where the resolver has packages that no archive offers.
_LOCAL = {"kept": "scratch/local/kept", "files": "scratch/local/files"}


def package(name: str, version: str, *, state: str = "", architecture: str = "amd64", **fields: str) -> str:
    """Return the paragraph of an offered package, or of an installed one with a state ("install", "hold")."""
    status = {"Status": f"{state} ok installed"} if state else {"Filename": f"./{name}.deb", "Size": "1"}
    rows = {"Package": name, "Version": version, "Architecture": architecture, "Maintainer": "x"}
    rows |= status | {"SHA256": "0" * 64, "Description": "x"} | fields
    return "".join(f"{key}: {value}\n" for key, value in rows.items())


def installed(name: str, version: str, **fields: str) -> str:
    """Return the paragraph of an installed package."""
    return package(name, version, state="install", **fields)


def resolve(
    directory: Path,
    present: Sequence[str],
    archives: Mapping[str, Sequence[str]],
    *,
    unreachable: Sequence[str] = (),
    cached: Sequence[str] = (),
    in_use: Sequence[tuple[str, str]] = (),
    automatic: Sequence[str] = (),
    policy: str = "",
    **goal: Any,
) -> dict[str, Any]:
    """Resolve a goal.

    present: paragraphs of installed packages.
    archives: suite -> paragraphs of offered packages. "security" has security updates, "kept" the packages
        of the present tree, and "files" those that are given as files.
    unreachable: suites that are left out.
    cached: names of downloaded archives (NAME_VERSION_ARCHITECTURE.deb).
    in_use: names and versions of packages that may be out of reach.
    automatic: names of installed packages that came as dependencies.
    policy: lines of [Policy].

    Returns the plan as JSON with `left_out`, `out_of_reach` and `policy`, the decision, or
    {"refused": MESSAGE, "details": LINES}.
    """
    for name in ("etc/apt", "state/lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "status").write_text("\n".join(present))
    states = (f"Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n" for name in automatic)
    (directory / "state/extended_states").write_text("\n".join(states))
    places = {suite: _write_archive(directory, suite, rows) for suite, rows in archives.items()}
    lines = (f"deb [trusted=yes] file:{place} ./\n" for place in places.values())
    (directory / "etc/apt/sources.list").write_text("".join(lines))
    configuration = {
        "Dir": f"{directory}/",
        "Dir::Etc": "etc/apt/",
        "Dir::State": "state/",
        "Dir::State::status": f"{directory}/status",
        "Dir::Cache": "cache/",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
    }
    conf = directory / "apt.conf"
    conf.write_text("".join(f'{key} "{value}";\n' for key, value in configuration.items()))
    names = [f"file:{places[suite]} ./" for suite in unreachable]
    environment = {**os.environ, "APT_CONFIG": str(conf), "PYTHONPATH": str(SOURCE)}
    for name in cached:
        (directory / "cache/archives" / name).write_text("x")
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, _PROGRAM, directory / "scratch"],
        input=json.dumps(goal | {"unreachable": names, "in_use": in_use, "policy": policy}),
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _write_archive(directory: Path, suite: str, rows: Sequence[str]) -> Path:
    place = directory / (_LOCAL.get(suite) or f"archives/{suite}")
    place.mkdir(parents=True)
    packages = "\n".join(rows)
    (place / "Packages").write_text(packages)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    label = "World-Security" if suite == "security" else "World"
    (place / "Release").write_text(
        f"Origin: World\nLabel: {label}\nSuite: {suite}\nCodename: {suite}\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest} {len(packages.encode())} Packages\n"
    )
    return place
