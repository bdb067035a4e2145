"""Drives apt-ostree inside the machine, and brings the machine back to where it was."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_lib.measure import ENVIRONMENT, BenchError, flush, run, timed

#: A small package with its dependencies, from Debian: jq, libjq1, libonig5.
SMALL = ("jq",)
#: Forty packages of Debian: these, and what they need. Small, and none has a service.
FORTY = (
    *("bc", "bsdextrautils", "colordiff", "cowsay", "dc", "diffstat", "dos2unix", "ed", "entr", "fdupes"),
    *("figlet", "file", "hexedit", "htop", "lz4", "m4", "ncdu", "netcat-openbsd", "patch", "psmisc", "pv"),
    *("pwgen", "rename", "rlwrap", "sl", "socat", "time", "tree", "unzip", "wdiff", "whois", "xxd", "zip"),
)
_LAYERS = "/sysroot/ostree/apt-ostree/layers"
#: A worker whose events bear the time at which they were sent.
_STAMPING = """
import sys, time
from apt_ostree import worker
from apt_ostree.model import events
to_wire = events.to_wire
events.to_wire = lambda event: {**to_wire(event), "time": time.monotonic()}
sys.exit(worker.main())
"""


def install(names: Sequence[str]) -> float:
    """Stage packages; return the seconds."""
    return timed("apt-ostree", "install", "-y", "-q", *names)


def uninstall(names: Sequence[str]) -> float:
    """Stage a deployment without packages of the booted one; return the seconds."""
    return timed("apt-ostree", "uninstall", "-y", "-q", *names)


def apply_live() -> float:
    """Apply the staged deployment; return the seconds."""
    return timed("apt-ostree", "apply-live", "-y", "-q")


def undo_live() -> None:
    """Show the booted /usr again, and leave nothing that would spare the next layer a step.

    The checked-out layer goes, and its commit and directory objects are pruned from the repository.
    """
    run("apt-ostree", "apply-live", "--reset", "-q")
    run("apt-ostree", "cleanup", "-b", "-q")
    run_writable("rm", "-rf", _LAYERS)


def drop_pending() -> None:
    """Remove the staged deployment and its objects."""
    run("apt-ostree", "cleanup", "-p", "-q")


def keep_pending(ref: str) -> str:
    """Give the staged deployment's commit a ref, which outlives the deployment; return the commit."""
    commit: str = json.loads(run("apt-ostree", "status", "-J", "$.deployments[0].checksum"))[0]
    run_writable("ostree", "refs", f"--create={ref}", commit)
    return commit


def forget_kept(prefix: str) -> None:
    """Remove the refs with a prefix, and what nothing refers to any more."""
    run_writable("ostree", "refs", "--delete", prefix)
    run("apt-ostree", "cleanup", "-b", "-q")


def run_writable(*argv: str | Path) -> None:
    """Run a program that sees a writable /sysroot."""
    script = 'mount -o remount,bind,rw /sysroot && exec "$@"'
    run("unshare", "--mount", "sh", "-c", script, "sh", *argv)


def steps(verb: str, **arguments: Any) -> dict[str, float]:
    """Run a verb in a worker; return the seconds of each step by its title, and more.

    `start`: until the first event; `total`: from start to exit. Digits in titles become N. The worker is
    started without the command line, which adds the same time to everything, and stamps its events itself:
    a step of a millisecond would drown in what it takes to relay them.
    """
    flush()
    began = time.monotonic()
    done = subprocess.run(
        ["python3", "-c", _STAMPING],
        input=json.dumps({"verb": verb, "request": arguments}) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    total = time.monotonic() - began
    if done.returncode != 0:
        raise BenchError(f"{verb} failed: {done.stdout[-1000:]}")
    *events, _end = map(json.loads, done.stdout.splitlines())
    return {"start": events[0]["time"] - began, **_durations(events), "total": total}


def _durations(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    running: list[float] = []
    for event in events:
        if event["event"] == "task-begin":
            running.append(event["time"])
        elif event["event"] == "task-end":
            began = running.pop()
            if not running:  # a step inside another is part of it
                title = re.sub(r"\d+", "N", event["title"])
                found[title] = found.get(title, 0.0) + event["time"] - began
    return found


def packages_of(names: Sequence[str]) -> int:
    """Return how many packages an installation brings, as a dry run tells."""
    result = json.loads(run("apt-ostree", "install", "--dry-run", "--json", *names))
    return len(result["transaction"]["install"])


def booted_directory() -> Path:
    """Return the booted deployment by a path that no live switch covers."""
    for line in run("ostree", "admin", "status").splitlines():
        mark, _, rest = line.partition(" ")
        if mark == "*":
            stateroot, deployment = rest.split()[:2]
            return Path(f"/sysroot/ostree/deploy/{stateroot}/deploy/{deployment}")
    raise BenchError("no deployment is booted")
