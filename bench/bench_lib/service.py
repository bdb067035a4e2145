"""What the service costs: a verb through it against one without it, `status` of it, and its memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench_lib.measure import BenchError, interleaved, run, timed

_UNIT = "apt-ostreed.service"
#: A verb that finds nothing to do, so that the way to it is all that is measured.
_VERB = ("apt-ostree", "recover", "-q")
#: A failpoint, even one without a name, has the command line start a worker of its own.
_WITHOUT = {"APT_OSTREE_FAILPOINT": ""}
_STATUS = (
    *("runuser", "-u", "nobody", "--", "busctl", "--json=short", "call", "org.debian.aptostree1"),
    *("/org/debian/aptostree1", "org.debian.aptostree1.Queries", "Query", "ss", "status", "{}"),
)


def measure(rounds: int) -> dict[str, Any]:
    """Return the seconds of both ways of a verb, and of `status` with a cold start; the service's kB."""
    found: dict[str, list[float]] = {"with": [], "without": [], "status": []}
    run(*_VERB)
    for _number in interleaved(
        rounds,
        lambda: found["with"].append(timed(*_VERB)),
        lambda: found["without"].append(timed(*_VERB, env=_WITHOUT)),
    ):
        pass
    memory = _resident()
    for _number in range(rounds):
        run("systemctl", "stop", _UNIT)
        found["status"].append(timed(*_STATUS))
    return {**found, "memory": max(memory, _resident())}


def _resident() -> int:
    """Return the resident memory of the service in kB."""
    pid = run("systemctl", "show", "--value", "--property=MainPID", _UNIT).strip()
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    if not match:
        raise BenchError("the service does not run")
    return int(match[1])
