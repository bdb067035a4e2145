"""status. It runs in this process, without a worker, and imports little, because it must be fast."""

from __future__ import annotations

import click

from apt_ostree.cli import render
from apt_ostree.cli.options import answer, quiet
from apt_ostree.errors import EXIT_UNCHANGED
from apt_ostree.model.queries import Status


@click.command(epilog="Examples: apt-ostree status -v; apt-ostree status -J '$.deployments[0].version'")
@click.option("-v", "--verbose", is_flag=True, help="Show more details and versions.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with rpm-ostree's keys.")
@click.option(
    "-J", "--jsonpath", metavar="EXPRESSION", help="Print what a JSONPath selects from that object."
)
@click.option("-b", "--booted", is_flag=True, help="Show the booted deployment only.")
@click.option("--pending-exit-77", is_flag=True, help="Exit with 77 if there is a pending deployment.")
@click.option("--sysroot", default="/", metavar="PATH", help="Show the system below PATH.")
@quiet
def status(as_json: bool, jsonpath: str | None, sysroot: str, booted: bool, **given: bool) -> int:
    """Show the deployments, their layered packages, and live changes."""
    if as_json and jsonpath:
        raise click.UsageError("--json and --jsonpath exclude each other")
    state = answer(Status(sysroot=sysroot, booted=booted))
    if as_json:
        render.result_json(state.to_json())
    elif jsonpath:
        from apt_ostree.model import jsonpath as paths

        render.result_json(paths.query(state.to_json(), jsonpath))
    else:
        from apt_ostree.cli import statusview

        bullet = render.bullet()
        rows = (
            statusview.brief(state, bullet=bullet)
            if given["quiet"]
            else statusview.lines(state, verbose=given["verbose"], bullet=bullet)
        )
        render.lines("\n".join(rows))
    return EXIT_UNCHANGED if given["pending_exit_77"] and state.pending else 0
