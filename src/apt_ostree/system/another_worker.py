"""Carries a request out in another worker, in surroundings that are to make no difference.

The worker is a process of its own, with another seed of Python's hashes. It has another host name, umask,
time zone, language and current directory than this one, and none of our variables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apt_ostree import program
from apt_ostree.errors import AptOstreeError
from apt_ostree.system import process

#: Names that need neither tables of time zones nor locales on this machine.
_ENVIRONMENT = {"TZ": "<+14>-14", "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8", "HOME": "/nowhere"}
_SURROUNDINGS = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--uts"),
    *("sh", "-c", 'hostname another-machine && umask 0077 && exec "$@"', "sh"),
)


def carry_out(
    verb: str, request: Mapping[str, Any], *, what: str, place: Path, source_date: int
) -> dict[str, Any]:
    """Carry out a request and return its result; raise the error that it ended with.

    what: the purpose, for the error message ("cannot {what}").
    place: its current directory.
    source_date: its SOURCE_DATE_EPOCH, in seconds since 1970.
    """
    done = process.run(
        [*_SURROUNDINGS, *program.command("worker")],
        what=what,
        env={**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(source_date)},
        cwd=place,
        stdin=json.dumps({"verb": verb, "request": dict(request), "ask": False}) + "\n",
        check=False,
    )
    end = _end(done.stdout)
    if end is None:
        raise process.failure(what, done, done.stderr)
    if not end["ok"]:
        raise AptOstreeError.from_json(end)
    result: dict[str, Any] = end["result"]
    return result


def _end(output: str) -> Mapping[str, Any] | None:
    """Return the last event, with which a worker ends; None if it has not come to its end."""
    last: Mapping[str, Any] = json.loads(output.splitlines()[-1]) if output.strip() else {}
    return last if last.get("event") == "end" else None
