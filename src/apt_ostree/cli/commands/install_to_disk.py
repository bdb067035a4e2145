"""`apt-ostree install-to-disk`: installs a system on a disk of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.cli.machine_options import commit_fields, image_options, machine_fields, machine_options
from apt_ostree.model.requests.images import InstallToDisk


@click.command("install-to-disk")
@click.argument("device")
@click.option("-r", "--repo", metavar="REPO", help="Repository with the commit; the default is the system's.")
@click.option("--ref", metavar="REF", help="Ref of the commit, which the machine follows.")
@image_options
@machine_options
@click.option("--wipe", is_flag=True, help="Remove what is on the disk.")
@options.dry_run
@options.assume_yes
@options.output
def install_to_disk(device: str, **given: Any) -> int:
    """Install a system on DEVICE, a whole disk that is not in use; it starts by UEFI and by a BIOS.

    It is the commit that the booted deployment is based on, or the one of a ref in a repository, or of a
    container image. Packages that are layered here, configuration and data do not come along.
    """
    if (given["repo"] is None) != (given["ref"] is None):
        raise click.UsageError("--repo and --ref go together")
    asks = options.can_ask(given)
    if not (asks or given["assumeyes"] or given["dry_run"]):
        raise click.UsageError("there is nobody to ask whether to write to the disk: add --assumeyes")
    request = InstallToDisk(
        device=device,
        wipe=given["wipe"],
        dry_run=given["dry_run"],
        **commit_fields(given),
        **machine_fields(given),
    )
    return options.run_verb(request, given, ask=asks, show=None if given["dry_run"] else _show)


def _show(result: Mapping[str, Any]) -> None:
    render.lines(f"{result['device']} now starts {result['ref']} {result['commit'][:12]}")
