"""Options that several commands share, and how a request is made of them and carried out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import click

from apt_ostree.cli import render
from apt_ostree.errors import EXIT_UNCHANGED, AptOstreeError
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.requests import DeployOptions, LiveOptions, Request
from apt_ostree.model.sizes import read_size

Command = Callable[..., Any]
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class Span(click.ParamType):
    """A span of time such as 90, 10m or 1h30m (systemd.time(7)), in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        text = str(value).replace(" ", "")
        parts = re.findall(r"(\d+)([a-z]*)", text)
        known = all(unit in _SECONDS or not unit for _number, unit in parts)
        if not known or "".join(n + u for n, u in parts) != text or not any(int(n) for n, _unit in parts):
            self.fail(f"{value!r} is not a span of time such as 90s, 10m or 1h30m", param, ctx)
        return float(sum(int(number) * _SECONDS.get(unit, 1) for number, unit in parts))


class Size(click.ParamType):
    """A size such as 500k, 20M or 2G, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        try:
            return value if isinstance(value, int) else read_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


json_document = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print less.")
_OUTPUT = (
    json_document,
    click.option("--events", is_flag=True, help="Print what happens and the result as JSON lines."),
    click.option(
        "--progress-fd",
        type=click.IntRange(0),
        metavar="FD",
        help="Write what happens as JSON lines to this file descriptor.",
    ),
    quiet,
)


def output(command: Command) -> Command:
    """Add the options about what a verb prints."""
    for option in reversed(_OUTPUT):
        command = option(command)
    return command


dry_run = click.option("-n", "--dry-run", is_flag=True, help="Show what would be done and change nothing.")
assume_yes = click.option("-y", "--assumeyes", is_flag=True, help="Go ahead without asking.")
reboot = click.option("-r", "--reboot", is_flag=True, help="Reboot when the deployment is ready.")
cache_only = click.option("-C", "--cache-only", is_flag=True, help="Use the package lists that are here.")
download_only = click.option("--download-only", is_flag=True, help="Download the packages and stop.")
idempotent = click.option("--idempotent", is_flag=True, help="Accept what is already as asked.")
unchanged_exit_77 = click.option("--unchanged-exit-77", is_flag=True, help="Exit 77 when nothing changed.")
apply_live = click.option("-A", "--apply-live", is_flag=True, help="Apply the result to the running system.")
allow_replacement = click.option(
    "--allow-replacement", is_flag=True, help="Replace or remove running packages, too."
)

force = click.option(
    "--force", is_flag=True, help="Take every risk of a live change that may be taken; the plan names them."
)
verbose = click.option(
    "-v", "--verbose", is_flag=True, help="Show all evidence in the plan, and all of an error."
)
restart_services = click.option(
    "--restart-services",
    is_flag=False,
    flag_value="needed",
    default="none",
    show_default=True,
    type=click.Choice(["none", "needed", "all"]),
    help="Restart and reload what the change affects; 'all': also what would see the old /usr for ever.",
)
confirm_within = click.option(
    "--confirm-within",
    metavar="TIME",
    type=Span(),
    help="Undo the change after TIME (such as 10m) unless 'apt-ostree confirm' is run.",
)

no_wait = click.option(
    "--no-wait", is_flag=True, help="Fail at once when another program is changing the system."
)

_DEPLOY = (
    no_wait,
    output,
    dry_run,
    assume_yes,
    reboot,
    cache_only,
    download_only,
    unchanged_exit_77,
    apply_live,
    restart_services,
    confirm_within,
    force,
    verbose,
)


def deploy(command: Command) -> Command:
    """Add the options of every verb that makes a deployment."""
    for option in reversed(_DEPLOY):
        command = option(command)
    return command


def deploy_options(given: Mapping[str, Any], *, allow_replacement: bool) -> DeployOptions:
    """Return how a deployment is to be made; UsageError for options that exclude each other."""
    if given["apply_live"] and given["reboot"]:
        raise click.UsageError("--apply-live and --reboot exclude each other")
    live = live_options(given, allow_replacement=allow_replacement)
    if not given["apply_live"] and replace(live, allow_replacement=False) != LiveOptions():
        raise click.UsageError("--restart-services, --confirm-within and --force need --apply-live")
    return DeployOptions(
        dry_run=given["dry_run"],
        cache_only=given["cache_only"],
        download_only=given["download_only"],
        live=live if given["apply_live"] else None,
    )


def live_options(given: Mapping[str, Any], *, allow_replacement: bool = False) -> LiveOptions:
    """Return how a live change is to be made."""
    return LiveOptions(
        restart_services=RestartPolicy(given["restart_services"]),
        confirm_within=given["confirm_within"],
        allow_replacement=allow_replacement,
        force=given["force"],
    )


def can_ask(given: Mapping[str, Any]) -> bool:
    """Tell whether to ask before acting: a person is there, and has not answered beforehand."""
    silent = given["assumeyes"] or given["dry_run"] or given["as_json"] or given["events"]
    return not silent and sys.stdin.isatty()


def run_verb(
    request: Request,
    given: Mapping[str, Any],
    *,
    ask: bool = False,
    show: Callable[[Mapping[str, Any]], None] | None = None,
    then: Callable[[Mapping[str, Any]], None] | None = None,
) -> int:
    """Carry a request out, show how it goes, and return the exit code.

    ask: whether to ask the user before acting; show: prints a result as text; without it, what was reported
    on the way says enough; then: what else is done with a result.
    """
    from apt_ostree.cli import client  # `status` needs these options and starts no worker

    view = render.view(
        as_json=given["as_json"],
        events=given["events"],
        progress_fd=given["progress_fd"],
        quiet=given["quiet"],
        verbose=given.get("verbose"),
    )
    try:
        answer = client.call(request, view, ask=ask, wait=not given.get("no_wait"))
    except AptOstreeError as failure:
        return view.fail(failure)
    view.end(answer.result)
    if view.is_text and show:
        show(answer.result)
    if then:
        then(answer.result)
    if given.get("unchanged_exit_77") and not answer.result["changed"]:
        return EXIT_UNCHANGED
    if given.get("reboot") and answer.next_boot:
        client.reboot()
    elif view.is_text and answer.next_boot and not answer.result.get("live"):
        render.lines("The change takes effect at the next boot; run 'systemctl reboot' to boot into it.")
    return 0


def answer(query: Request) -> Any:
    """Answer a query in this process."""
    from apt_ostree.core import queries

    return queries.answer(query)


def completions(query: Request, incomplete: str) -> list[str]:
    """Return the names of a query's answer that begin so; none where it cannot be answered."""
    try:
        return [name for name in answer(query) if name.startswith(incomplete)]
    except AptOstreeError:
        return []


@contextmanager
def open_files(paths: Iterable[str]) -> Iterator[tuple[OpenFile, ...]]:
    """Open files with the caller's rights, to be passed with a request."""
    from apt_ostree.system import openfiles

    with ExitStack() as stack:
        yield tuple(stack.enter_context(openfiles.opened(path)) for path in paths)


def split_packages(packages: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Separate the names of packages from the paths of .deb files."""
    names = tuple(package for package in packages if not package.endswith(".deb"))
    return names, tuple(package for package in packages if package.endswith(".deb"))


def package_names(given: Iterable[str], option: str) -> tuple[str, ...]:
    """Return the names of a list that may be given in parts; one without names would select everything."""
    names = [name.strip() for part in given for name in part.split(",")]
    if not all(names):
        raise click.UsageError(f"{option} names no package")
    return tuple(dict.fromkeys(names))
