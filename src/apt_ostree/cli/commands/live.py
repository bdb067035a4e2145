"""apply-live and recover."""

from __future__ import annotations

import sys
from typing import Any

import click

from apt_ostree.cli import options

#: Argument of the verb -> option with a list of packages.
_LISTS = {"packages": "--packages", "excluded": "--except"}

#: When systemd calls `recover`; see core.boot.recovery.
_MOMENTS = ("call", "boot", "booted", "deadline", "shutdown", "finalized")


@click.command(
    name="apply-live",
    epilog="Examples: apt-ostree apply-live; apt-ostree apply-live --packages=nginx,openssl; "
    "apt-ostree apply-live --security --except=openssh-server; apt-ostree apply-live --reset",
)
@options.json_output
@options.quiet
@options.dry_run
@options.assume_yes
@options.allow_replacement
@options.unchanged_exit_77
@options.no_wait
@options.force
@options.verbose
@options.restart_services
@options.confirm_within
@click.option("--target", metavar="COMMIT", help="Apply this commit instead of the pending deployment's.")
@click.option("--reset", is_flag=True, help="Go back to the booted commit.")
@click.option(
    "--packages", multiple=True, metavar="NAME,...", help="Apply only these, with what they depend on."
)
@click.option("--except", "excluded", multiple=True, metavar="NAME,...", help="Apply all but these packages.")
@click.option("--security", is_flag=True, help="Apply only security updates.")
def apply_live(target: str | None, reset: bool, allow_replacement: bool, dry_run: bool, **given: Any) -> int:
    """Make the pending deployment current on the running system, without a reboot.

    The plan is shown before anything is changed. Nobody sees a half-changed /usr; when a step fails,
    everything is put back.

    With --packages, --except and --security, a part of the pending deployment is applied, and the rest waits
    for the reboot; where none is pending, packages come from the archives, and a name may be NAME=VERSION.
    What comes from the archives this way lasts until the reboot. Packages that change need no
    --allow-replacement then.
    """
    selection = {key: options.words(given[key], option) for key, option in _LISTS.items()}
    selected = any(selection.values()) or given["security"]
    if reset and target:
        raise click.UsageError("--reset and --target exclude each other")
    if selected and (reset or target):
        raise click.UsageError("--packages, --except and --security exclude --reset and --target")
    confirm = not given["assumeyes"] and not dry_run and sys.stdin.isatty() and not given["as_json"]
    arguments: dict[str, Any] = {
        "target": target,
        "reset": reset,
        **selection,
        "security": given["security"],
        "allow_replacement": allow_replacement,
        "dry_run": dry_run,
        "confirm": confirm,
    }
    if reset and given["confirm_within"]:
        raise click.UsageError("--reset and --confirm-within exclude each other")
    arguments |= {name: given[name] for name in ("restart_services", "confirm_within", "force")}
    return options.run_verb("apply-live", arguments, given)


@click.command(epilog="Example: apt-ostree install -A --confirm-within=10m nginx, then apt-ostree confirm")
@options.json_output
@options.quiet
@options.no_wait
def confirm(**given: Any) -> int:
    """Keep a live change that was made with --confirm-within."""
    return options.run_verb("confirm", {}, given)


@click.command()
@options.json_output
@options.quiet
@click.option("--at", type=click.Choice(_MOMENTS), default="call", hidden=True)
def recover(at: str, **given: Any) -> int:
    """Finish or undo what an interrupted command left behind.

    This happens by itself at the next changing command and at boot.
    """
    return options.run_verb("recover", {"at": at}, given)
