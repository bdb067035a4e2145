"""history: lists, shows and compares operations, and verifies their records."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from apt_ostree.cli import options, plans, render
from apt_ostree.model.queries import CompareOperations, History, ShowOperation, VerifyHistory


@click.group(
    invoke_without_command=True,
    epilog="Examples: apt-ostree history; apt-ostree history show 3; apt-ostree history diff 0 3",
)
@options.json_document
@click.option("--limit", metavar="N", type=click.IntRange(1), help="List only the newest N.")
@click.pass_context
def history(context: click.Context, as_json: bool, limit: int | None) -> None:
    """List all operations: when they began, who asked for them, and how they ended."""
    context.obj = as_json
    if context.invoked_subcommand:
        return
    entries = options.answer_json(History(most=limit))
    if as_json:
        render.result_json(entries)
    else:
        render.lines("\n".join(_table(entries)) if entries else "No operation is recorded.")


@history.command()
@options.json_document
@options.verbose
@click.argument("number", type=int, shell_complete=options.complete_operation)
@click.pass_obj
def show(json_before: bool, number: int, as_json: bool, verbose: bool) -> None:
    """Show one operation: who asked for it, from where, its plan, its outcome and the reasons."""
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


@history.command()
@options.json_document
@click.pass_obj
def verify(json_before: bool, as_json: bool) -> int:
    """Verify that no record was changed or removed; exit with 1 if one was."""
    found = options.answer(VerifyHistory())
    if as_json or json_before:
        render.result_json(found)
    else:
        render.lines("\n".join(_verdict(found)))
    return 0 if found["ok"] else 1


def _verdict(found: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{problem['fault']}: {problem['text']}" for problem in found["problems"])
    records = f"{found['records']} records ({found['first']} to {found['last']})"
    told = f"{found['journal']} of them are in the systemd journal"
    if found["ok"]:
        yield f"{records} are as they were written; {told}."
    else:
        yield f"{records} have {plans.count(len(found['problems']), 'problem')}; {told}."


def _table(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (str(e["number"]), _when(e["began"]), e["caller"], _what(e), _summary(e), str(e["outcome"]))
        for e in entries
    ]
    yield from render.table(("", "WHEN", "WHO", "WHAT", "CHANGE", "OUTCOME"), rows)


def _what(entry: Mapping[str, Any]) -> str:
    """Return the command, with the packages that it is about."""
    packages = entry["arguments"].get("packages")
    text = " ".join([entry["verb"], *(packages if isinstance(packages, list) else ())])
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _summary(entry: Mapping[str, Any]) -> str:
    packages: Mapping[str, Any] = entry["plan"].get("packages") or entry["packages"]
    counts = [f"{sign}{len(packages[key])}" for key, sign in _SIGNS if packages.get(key)]
    return " ".join(counts) or ("files" if entry["plan"] else "")


#: Characters of a command in the list.
_WIDTH = 40
_SIGNS = (("added", "+"), ("removed", "-"), ("changed", "~"))


def _details(entry: Mapping[str, Any], *, verbose: bool) -> Iterator[str]:
    yield f"Operation:  {entry['number']} ({entry['verb']}) by {entry['caller']}"
    yield f"Began:      {_when(entry['began'])}"
    if entry["who"]:
        yield f"From:       {_origin(entry['who'])}"
    if entry["arguments"]:
        yield f"Arguments:  {json.dumps(entry['arguments'], ensure_ascii=False)}"
    if entry["target"]:
        yield f"Commits:    {entry['source'][:12]} -> {entry['target'][:12]}"
    yield f"Outcome:    {entry['outcome']}" + (f": {entry['message']}" if entry["message"] else "")
    yield from (f"            {reason}" for reason in entry["reasons"])
    for event in entry["events"]:
        yield f"Meanwhile:  {_when(event['time'])} {event['kind']}: {event['message']}"
    if entry["digest"]:
        yield f"Plan:       {entry['digest']}"
    if steps := entry["steps"]:
        yield "Steps:      " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in steps.items())
    if entry["plan"]:
        yield from plans.lines("live", entry["plan"], verbose=verbose)
        return
    signs = dict(_SIGNS)
    yield from (f"  {signs[key]} {text}" for key, rows in entry["packages"].items() for text in rows)


def _origin(who: Mapping[str, Any]) -> str:
    """Return from where a caller asked for an operation."""
    parts = [f"uid {who['uid']}"]
    parts += [f"login uid {who['login_uid']}"] if who["login_uid"] is not None else []
    names = {"session": "session ", "tty": "", "remote": "host ", "unit": ""}
    parts += [f"{prefix}{who[name]}" for name, prefix in names.items() if who[name]]
    return ", ".join([*parts, "by the service" if who["via"] == "bus" else "directly"])


def _difference(difference: Mapping[str, Any]) -> Iterator[str]:
    yield f"{difference['source'][:12]} -> {difference['target'][:12]}"
    yield from plans.package_lines(difference["packages"])
    yield from (f"  {kind:8}{path}" for kind, path in difference["changes"])


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
