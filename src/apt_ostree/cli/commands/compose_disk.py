"""`apt-ostree compose disk`: makes a disk image of a tree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.cli.machine_options import commit_fields, image_options, machine_fields, machine_options
from apt_ostree.model.requests.images import ComposeDisk, ImageFormat
from apt_ostree.model.sizes import show_size


@click.command()
@click.argument("treefile", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE", required=True, help="Write the image to FILE.")
@click.option(
    "-r", "--repo", metavar="REPO", help="Repository with the commit, or to commit the treefile's tree to."
)
@click.option("--ref", metavar="REF", help="Ref of the commit, which the machine follows.")
@click.option(
    "--format",
    "form",
    type=click.Choice([*ImageFormat]),
    help="The format of FILE; the default is qcow2 if it ends so, else raw.",
)
@click.option(
    "--size",
    metavar="SIZE",
    type=options.Size(),
    help="Size of the disk, such as 8G; the default has room for an upgrade.",
)
@image_options
@machine_options
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option(
    "--verify-reproducible",
    "verify",
    is_flag=True,
    help="Make the image a second time, its tree too, and write FILE only if both are the same.",
)
@options.output
def disk(treefile: Path | None, **given: Any) -> int:
    """Compose a disk image that boots a tree, by UEFI and by BIOS.

    The tree is composed from TREEFILE, or it is the commit of a ref in a repository, or of a container image.
    """
    if treefile and given["image"]:
        raise click.UsageError("--image goes without a TREEFILE")
    form = given["form"]
    request = ComposeDisk(
        output=given["output"],
        treefile=str(treefile) if treefile else None,
        format=ImageFormat(form) if form else None,
        size=given["size"],
        force=given["force"],
        verify=given["verify"],
        **commit_fields(given),
        **machine_fields(given),
    )
    return options.run_verb(request, given, show=_show)


def _show(result: Mapping[str, Any]) -> None:
    sizes = f"a disk of {show_size(result['size'])}, {show_size(result['bytes'])} written"
    render.lines(f"{result['output']}: {sizes}")
