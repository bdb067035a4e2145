"""rollback and cleanup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from apt_ostree.cli import options, render


@click.command(epilog="Examples: apt-ostree rollback; apt-ostree rollback -r")
@options.json_output
@options.quiet
@options.reboot
def rollback(**given: Any) -> int:
    """Boot the previous deployment next.

    A second rollback takes the first one back. A staged deployment is dropped, which the output says. Changes
    made to the running system are stepped back from with apply-live --reset instead.
    """
    return options.run_verb("rollback", {}, given)


@click.command(epilog="Examples: apt-ostree cleanup -b; apt-ostree cleanup -p -r; apt-ostree cleanup -m")
@options.json_output
@options.quiet
@click.option("-b", "--base", is_flag=True, help="Remove temporary files and what nothing refers to.")
@click.option("-p", "--pending", is_flag=True, help="Remove the pending deployment.")
@click.option("-r", "--rollback", is_flag=True, help="Remove the rollback deployment.")
@click.option("-m", "--repomd", is_flag=True, help="Remove downloaded package lists and archives.")
@click.option("--stateroot", "--os", metavar="NAME", help="Work on this stateroot instead of the booted one.")
def cleanup(base: bool, pending: bool, rollback: bool, repomd: bool, **given: Any) -> int:
    """Remove deployments, leftovers and downloads; at least one option says which.

    Pinned deployments stay, and so does what the running system shows.
    """
    arguments = {
        "base": base,
        "pending": pending,
        "rollback": rollback,
        "repomd": repomd,
        "stateroot": given.pop("stateroot"),
    }
    return options.run_verb("cleanup", arguments, given, show=None if given["quiet"] else _show_freed)


def _show_freed(result: Mapping[str, Any]) -> None:
    from apt_ostree.cli import plans

    render.lines(f"Freed {plans.size(result['freed_bytes'])}.")
