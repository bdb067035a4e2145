"""cancel and reload: what the service alone can do."""

from __future__ import annotations

import click

from apt_ostree.cli import render
from apt_ostree.cli.options import quiet
from apt_ostree.errors import UsageError


@click.command(epilog="Examples: apt-ostree cancel")
@quiet
def cancel(**given: bool) -> None:
    """Cancel the transaction that is at work, and wait until it is undone.

    'apt-ostree status' shows it. What is too late to be cancelled ends as it would. Those that wait for their
    turn are left alone.
    """
    from apt_ostree.cli import bus  # not at the top: completion imports each command

    try:
        active = bus.active()
    except bus.Unavailable as error:
        raise UsageError(
            "there is no service that has transactions",
            details=(str(error),),
            hint="a command that was started without a bus is cancelled with Ctrl-C",
        ) from error
    if active is None:
        text = "No active transaction."
    else:
        text = (
            f"Cancelled: {active.title}" if active.cancel_and_wait() else f"Ended before that: {active.title}"
        )
    if not given["quiet"]:
        render.lines(text)


@click.command(epilog="Examples: apt-ostree reload")
@quiet
def reload(**given: bool) -> None:
    """Have the service look at the deployments again.

    It notices what is changed, and each command reads the configuration when it begins, so that this is
    seldom needed.
    """
    from apt_ostree.cli import bus

    try:
        bus.reload()
    except bus.Unavailable as error:
        if not given["quiet"]:
            render.lines(f"There is no service to reload: {error}")
