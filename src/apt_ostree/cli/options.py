"""Options that several commands share, and how a transaction's arguments are made of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import render
from apt_ostree.errors import EXIT_UNCHANGED, AptOstreeError, Refused
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


json_output = click.option(
    "--json", "as_json", is_flag=True, help="Print events and the result as JSON lines."
)
json_document = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print less.")
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

_TRANSACTION = (
    no_wait,
    json_output,
    quiet,
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


def transaction(command: Command) -> Command:
    """Add the options of every verb that makes a deployment."""
    for option in reversed(_TRANSACTION):
        command = option(command)
    return command


def run_transaction(verb: str, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    """Run a verb that makes a deployment; return the exit code."""
    live = bool(given["apply_live"])
    if live and given["reboot"]:
        raise click.UsageError("--apply-live and --reboot exclude each other")
    wire = {
        **arguments,
        "dry_run": given["dry_run"],
        "cache_only": given["cache_only"],
        "download_only": given["download_only"],
        "confirm": live
        and not (given["assumeyes"] or given["dry_run"] or given["as_json"])
        and sys.stdin.isatty(),
    }
    if live:
        wire |= {
            "apply_live": True,
            "verb": f"{verb} -A",
            "restart_services": given["restart_services"],
            "confirm_within": given["confirm_within"],
            "force": given["force"],
        }
    elif given["restart_services"] != "none" or given["confirm_within"] or given["force"]:
        raise click.UsageError("--restart-services, --confirm-within and --force need --apply-live")
    return run_verb(verb, wire, given)


def run_verb(
    verb: str,
    arguments: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    show: Callable[[Mapping[str, Any]], None] | None = None,
) -> int:
    """Run a verb in a worker, show how it goes, and return the exit code.

    show: prints a result as text; without it, what was reported on the way says enough.
    """
    from apt_ostree.cli import client  # `status` needs these options and starts no worker

    as_json = bool(given["as_json"])
    try:
        if given.get("no_wait"):
            _refuse_busy()
        view = render.view(
            as_json=as_json, quiet=bool(given.get("quiet")), verbose=bool(given.get("verbose"))
        )
        result = client.call(verb, arguments, view)
    except AptOstreeError as failure:
        return render.error(failure, as_json=as_json, verbose=given.get("verbose"))
    if as_json:
        render.event_json({"event": "result", **result})
    elif show:
        show(result)
    if given.get("unchanged_exit_77") and not result.get("changed", True):
        return EXIT_UNCHANGED
    waits = result.get("staged") or result.get("next_boot")
    if given.get("reboot") and waits:
        client.reboot()
    elif not as_json and waits and not result.get("live"):
        render.lines("The change takes effect at the next boot; run 'systemctl reboot' to boot into it.")
    return 0


def _refuse_busy() -> None:
    from apt_ostree.core import status

    if status.is_busy():
        raise Refused(
            "another program is changing the system",
            hint="wait for it to end, or leave --no-wait out",
        )


def absolute_files(packages: tuple[str, ...]) -> list[str]:
    """Return package words with the paths of .deb files made absolute: the worker has its own directory."""
    return [str(Path(word).resolve()) if word.endswith(".deb") else word for word in packages]


def words(given: Iterable[str], option: str) -> list[str]:
    """Return the names of a list that may be given in parts; one without names would select everything."""
    words = [word.strip() for part in given for word in part.split(",")]
    if not all(words):
        raise click.UsageError(f"{option} names no package")
    return list(dict.fromkeys(words))
