"""`apt-ostree install-to-existing-root`: turns the Debian that runs into a system of a commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.cli.machine_options import boot_fields, boot_options, commit_fields, image_options
from apt_ostree.model.requests.images import InstallToExistingRoot


@click.command("install-to-existing-root")
@click.option("-r", "--repo", metavar="REPO", help="Repository with the commit.")
@click.option("--ref", metavar="REF", help="Ref of the commit, which the machine follows.")
@image_options
@boot_options
@options.dry_run
@options.assume_yes
@options.output
def install_to_existing_root(**given: Any) -> int:
    """Have the next boot of this Debian start a commit, on the root file system that it has.

    Users, network, ssh keys and the machine's name go along, and home directories are those of both systems.
    The old system stays as it is: the boot menu starts it, too.
    """
    if not (given["image"] or (given["repo"] and given["ref"])):
        raise click.UsageError("name a commit with --repo and --ref, or a container image with --image")
    asks = options.can_ask(given)
    if not (asks or given["assumeyes"] or given["dry_run"]):
        raise click.UsageError("there is nobody to ask whether to take this system over: add --assumeyes")
    request = InstallToExistingRoot(dry_run=given["dry_run"], **commit_fields(given), **boot_fields(given))
    return options.run_verb(request, given, ask=asks, show=None if given["dry_run"] else _show)


def _show(result: Mapping[str, Any]) -> None:
    render.lines(
        f"The next boot starts {result['ref']} {result['commit'][:12]}: run 'systemctl reboot'\n"
        f"Its root has the old one at /sysroot; without {result['hook']} the old system is started again"
    )
