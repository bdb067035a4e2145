"""apply-live, confirm and recover."""

from __future__ import annotations

from typing import Any

import click

from apt_ostree.cli import options
from apt_ostree.model.requests.live import ApplyLive, Confirm, Moment, Recover
from apt_ostree.model.selection import Selection


@click.command(
    name="apply-live",
    epilog="Examples: apt-ostree apply-live; apt-ostree apply-live --packages=nginx,openssl; "
    "apt-ostree apply-live --security --except=openssh-server; apt-ostree apply-live --reset",
)
@options.output
@options.dry_run
@options.assume_yes
@options.allow_replacement
@options.unchanged_exit_77
@options.no_wait
@options.force
@options.restart_services
@options.confirm_within
@options.override_policy
@options.allow_failed
@options.test
@click.option("--target", metavar="COMMIT", help="Apply this commit instead of the pending deployment's.")
@click.option("--reset", is_flag=True, help="Go back to the booted commit.")
@click.option(
    "--packages", multiple=True, metavar="NAME,...", help="Apply only these packages and their dependencies."
)
@click.option("--except", "excluded", multiple=True, metavar="NAME,...", help="Apply all but these packages.")
@click.option("--security", is_flag=True, help="Apply only security updates.")
def apply_live(target: str | None, reset: bool, allow_replacement: bool, **given: Any) -> int:
    """Make the pending deployment current on the running system, without a reboot.

    The plan is shown before anything is changed. /usr is switched in one step. If a step fails, everything is
    undone.

    With --packages, --except and --security, only a part of the pending deployment is applied. If there is no
    pending deployment, packages come from the archives, and a name may be NAME=VERSION; such a change lasts
    until the reboot. Selected packages can be replaced without --allow-replacement.
    """
    selection = Selection(
        options.package_names(given["packages"], "--packages"),
        options.package_names(given["excluded"], "--except"),
        given["security"],
    )
    if reset and target:
        raise click.UsageError("--reset and --target exclude each other")
    if selection and (reset or target):
        raise click.UsageError("--packages, --except and --security exclude --reset and --target")
    if reset and given["confirm_within"]:
        raise click.UsageError("--reset and --confirm-within exclude each other")
    request = ApplyLive(
        target=target,
        reset=reset,
        selection=selection,
        live=options.live_options(given, allow_replacement=allow_replacement),
        dry_run=given["dry_run"],
    )
    return options.run_verb(request, given, ask=options.can_ask(given))


@click.command(epilog="Example: apt-ostree install -A --confirm-within=10m nginx, then apt-ostree confirm")
@options.output
@options.no_wait
def confirm(**given: Any) -> int:
    """Keep a live change that was made with --confirm-within."""
    return options.run_verb(Confirm(), given)


@click.command()
@options.output
@click.option("--at", type=click.Choice([*Moment]), default="call", hidden=True)
def recover(at: str, **given: Any) -> int:
    """Undo a live change that was interrupted.

    The next command that changes the system, and the next boot, do this as well.
    """
    judges = at in (Moment.VERDICT, Moment.TIMEOUT)
    return options.run_verb(Recover(at=Moment(at)), {**given, "reboot": judges})
