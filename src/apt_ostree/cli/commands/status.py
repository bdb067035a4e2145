"""status. It runs in this process, without a worker, and imports little, because it must be fast."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import click

from apt_ostree.cli import render
from apt_ostree.cli.options import answer_here, quiet, whole_status
from apt_ostree.errors import EXIT_UNCHANGED
from apt_ostree.model.queries import CommitDiff, Status

#: Seconds between two looks at what has changed.
_PAUSE = 0.5


@click.command(epilog="Examples: apt-ostree status -v; apt-ostree status -J '$.deployments[0].version'")
@click.option("-v", "--verbose", is_flag=True, help="Show more details and versions.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with rpm-ostree's keys.")
@click.option(
    "-J", "--jsonpath", metavar="EXPRESSION", help="Print what a JSONPath selects from that object."
)
@click.option("-b", "--booted", is_flag=True, help="Show the booted deployment only.")
@click.option("-a", "--advisories", is_flag=True, help="Show the vulnerabilities that deployments mend.")
@click.option("-w", "--watch", is_flag=True, help="Show it again whenever something has changed.")
@click.option("--pending-exit-77", is_flag=True, help="Exit with 77 if there is a pending deployment.")
@click.option("--sysroot", default="/", metavar="PATH", help="Show the system below PATH.")
@quiet
def status(as_json: bool, jsonpath: str | None, sysroot: str, booted: bool, **given: bool) -> int:
    """Show the deployments, their layered packages, and live changes."""
    if as_json + bool(jsonpath) + given["watch"] > 1:
        raise click.UsageError("--json, --jsonpath and --watch exclude each other")
    query = Status(sysroot=sysroot, booted=booted)
    if given["watch"]:
        for _change in _changes():
            render.redraw(_text(_state(query, given), given))
        return 0
    state = _state(query, given)
    if as_json:
        render.result_json(state)
    elif jsonpath:
        from apt_ostree.model import jsonpath as paths

        render.result_json(paths.query(state, jsonpath))
    else:
        render.lines(_text(state, given))
    return EXIT_UNCHANGED if given["pending_exit_77"] and state["pending"] else 0


def _state(query: Status, given: Mapping[str, bool]) -> Mapping[str, Any]:
    """Return the status; with --advisories, deployments that differ from the booted one have theirs."""
    state: Mapping[str, Any] = whole_status(query)
    if given["advisories"]:
        for entry in (entry for entry in state["deployments"] if "diff" in entry):
            names = ("booted", entry["checksum"])
            answer = answer_here(CommitDiff(names=names, sysroot=query.sysroot, advisories=True))
            entry["advisories"] = answer["advisories"]
    return state


def _text(state: Mapping[str, Any], given: Mapping[str, bool]) -> str:
    from apt_ostree.cli import statusview

    if given["quiet"]:
        return "\n".join(statusview.brief(state, bullet=render.bullet()))
    return "\n".join(statusview.lines(state, verbose=given["verbose"], bullet=render.bullet()))


def _changes() -> Iterator[None]:
    """Yield now, and whenever the status may have changed, until Ctrl-C."""
    from apt_ostree.core import status as core_status

    stamp: object = None
    with suppress(KeyboardInterrupt):
        while True:
            before, stamp = stamp, core_status.stamp()
            if stamp != before:
                yield
            time.sleep(_PAUSE)
