"""The machine of the test bed that everything but composing is measured in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed_lib.images import Wanted, image
from testbed_lib.machine import Machine

from bench_lib.measure import say

_CODE = "/var/lib/bench/code"


@contextmanager
def booted(name: str, *, stale_base: bool = False, keep: bool, disk: Path | None = None) -> Iterator[Machine]:
    """Boot a fresh machine with this code in it, its package lists refreshed; remove it at the end.

    disk: to boot from, instead of the test bed's.
    """
    machine = Machine(name)
    machine.remove()
    machine.create_disk(disk or image(Wanted(stale=stale_base)))
    machine.boot()
    try:
        machine.exec("mkdir", "-p", _CODE, check=True)
        machine.exec("tar", "-xC", _CODE, input=_archive(), check=True)
        machine.exec("apt-ostree", "refresh-md", "--quiet", check=True)
        yield machine
    finally:
        if not keep:
            machine.remove()


def measure(machine: Machine, topic: str, **arguments: Any) -> Any:
    """Measure a topic inside the machine; return its figures (bench_lib.__main__ lists the topics)."""
    say(f"measuring: {topic}")
    paths = [f"PYTHONPATH={_CODE}", "PYTHONDONTWRITEBYTECODE=1"]
    argv = ["env", *paths, "python3", "-m", "bench_lib", topic, json.dumps(arguments)]
    return json.loads(machine.exec(*argv, stderr=None, check=True).stdout)


def _archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(Path(__file__).parent.glob("*.py")):
            archive.add(path, f"bench_lib/{path.name}")
    return stream.getvalue()
