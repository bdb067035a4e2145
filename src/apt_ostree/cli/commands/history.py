"""history: lists, shows and compares operations on the running system."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from apt_ostree.cli import options, plans, render
from apt_ostree.model.queries import CompareOperations, History, ShowOperation


@click.group(
    invoke_without_command=True,
    epilog="Examples: apt-ostree history; apt-ostree history show 3; apt-ostree history diff 0 3",
)
@options.json_document
@click.option("--limit", metavar="N", type=click.IntRange(1), help="List only the newest N.")
@click.pass_context
def history(context: click.Context, as_json: bool, limit: int | None) -> None:
    """List the operations on the running system, and how they ended."""
    context.obj = as_json
    if context.invoked_subcommand:
        return
    entries = options.answer_json(History(most=limit))
    if as_json:
        render.result_json(entries)
    else:
        render.lines("\n".join(_table(entries)) if entries else "Nothing was changed live.")


@history.command()
@options.json_document
@options.verbose
@click.argument("number", type=int, shell_complete=options.complete_operation)
@click.pass_obj
def show(json_before: bool, number: int, as_json: bool, verbose: bool) -> None:
    """Show one operation: its plan, its outcome, and the duration of its steps."""
    entry = options.answer_json(ShowOperation(number=number))
    if as_json or json_before:
        render.result_json(entry)
    else:
        render.lines("\n".join(_details(entry, verbose=verbose)))


@history.command()
@options.json_document
@click.argument("one", type=int, shell_complete=options.complete_operation)
@click.argument("two", type=int, shell_complete=options.complete_operation)
@click.pass_obj
def diff(json_before: bool, one: int, two: int, as_json: bool) -> None:
    """Compare what the system showed after two operations; 0 is the booted tree."""
    difference = options.answer_json(CompareOperations(one=one, two=two))
    if as_json or json_before:
        render.result_json(difference)
    else:
        render.lines("\n".join(_difference(difference)))


def _table(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (str(e["number"]), _when(e["began"]), e["caller"], e["verb"], _summary(e), str(e["outcome"]))
        for e in entries
    ]
    yield from render.table(("", "WHEN", "WHO", "WHAT", "CHANGE", "OUTCOME"), rows)


def _summary(entry: Mapping[str, Any]) -> str:
    packages: Mapping[str, Any] = entry["plan"].get("packages", {})
    counts = [f"{sign}{len(packages[key])}" for key, sign in _SIGNS if packages.get(key)]
    return " ".join(counts) or "files"


_SIGNS = (("added", "+"), ("removed", "-"), ("changed", "~"))


def _details(entry: Mapping[str, Any], *, verbose: bool) -> Iterator[str]:
    yield f"Operation:  {entry['number']} ({entry['verb']}) by {entry['caller']}"
    yield f"Began:      {_when(entry['began'])}"
    yield f"Commits:    {entry['source'][:12]} -> {entry['target'][:12]}"
    yield f"Outcome:    {entry['outcome']}" + (f": {entry['message']}" if entry["message"] else "")
    if steps := entry["steps"]:
        yield "Steps:      " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in steps.items())
    yield from plans.lines("live", entry["plan"], verbose=verbose)


def _difference(difference: Mapping[str, Any]) -> Iterator[str]:
    yield f"{difference['source'][:12]} -> {difference['target'][:12]}"
    yield from plans.package_lines(difference["packages"])
    yield from (f"  {kind:8}{path}" for kind, path in difference["changes"])


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
