"""`apt-ostree compose image` and `compose container-encapsulate`: make a container image of a tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.errors import UsageError
from apt_ostree.model import image_layers
from apt_ostree.model.oci import Compression, Form
from apt_ostree.model.requests.images import ComposeImage
from apt_ostree.model.sizes import show_size

Command = Callable[..., Any]
#: rpm-ostree's name of a format.
_ARCHIVE = "ociarchive"

_SHARED = (
    click.option(
        "-l",
        "--label",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        help="Add a label to the image; may be repeated.",
    ),
    click.option(
        "--max-layers",
        metavar="N",
        type=click.IntRange(image_layers.LEAST, image_layers.MOST),
        default=image_layers.DEFAULT,
        show_default=True,
        help="Make at most N layers.",
    ),
    click.option(
        "--compression",
        type=click.Choice([*Compression]),
        default=str(Compression.ZSTD),
        show_default=True,
        help="Compress the layers with this program.",
    ),
    click.option(
        "--previous",
        "--previous-build-manifest",
        "previous",
        metavar="IMAGE",
        help="Cut the layers like those of this image: a directory, an archive, or a file with its manifest. "
        "The default is the one that is replaced.",
    ),
    click.option(
        "-i", "--initialize", is_flag=True, help="Cut the layers anew, whatever is in the image's place."
    ),
    click.option(
        "--copymeta",
        "copy_metadata",
        multiple=True,
        metavar="KEY",
        help="Have a string of the commit's metadata as a label; may be repeated.",
    ),
    click.option(
        "--copymeta-opt",
        "copy_optional",
        multiple=True,
        metavar="KEY",
        help="The same, if the commit has it; may be repeated.",
    ),
    click.option(
        "--verify-reproducible",
        "verify",
        is_flag=True,
        help="Make the image a second time, its tree too, and write it only if both are the same.",
    ),
    options.dry_run,
    options.output,
)


def _shared(command: Command) -> Command:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command(epilog="Example: apt-ostree compose image os.yaml --repo=/srv/repo -o /srv/images/server")
@click.argument("treefile", required=False, type=click.Path(path_type=Path))
@click.argument("target", required=False, metavar="[OUTPUT]")
@click.option("-o", "--output", "target_option", metavar="OUTPUT", help="Write the image to OUTPUT.")
@click.option(
    "-r", "--repo", metavar="REPO", help="Repository with the commit, or to commit the treefile's tree to."
)
@click.option("--ref", metavar="REF", help="Ref of the commit, or the commit.")
@click.option(
    "--format",
    "form",
    type=click.Choice([*Form, _ARCHIVE]),
    help="A directory, or a file with a tar of one; the default goes by the name of OUTPUT.",
)
@click.option("--cachedir", metavar="DIR", help="Keep in this directory what the next compose can use again.")
@click.option(
    "--lockfile",
    "lockfiles",
    multiple=True,
    metavar="FILE",
    help="Take the versions of this lockfile; may be repeated.",
)
@click.option("--force-nocache", is_flag=True, help="Compose the tree even if nothing has changed.")
@click.option(
    "--touch-if-changed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Update the time stamp of FILE if the image has changed.",
)
@_shared
def image(treefile: Path | None, target: str | None, **given: Any) -> int:
    """Compose a container image (OCI) of a tree.

    The tree is composed from TREEFILE, or it is the commit of a ref in a repository. OUTPUT is a directory
    with an OCI image layout, or an archive of one if it ends in .ociarchive, .oci-archive or .tar. An image
    that is there is replaced as a whole, and its layers are kept as far as possible.
    """
    if (target is None) == (given["target_option"] is None):
        raise UsageError("where the image goes is given once", hint="-o OUTPUT, or OUTPUT behind TREEFILE")
    form = given["form"]
    request = ComposeImage(
        output=target or given["target_option"],
        treefile=str(treefile) if treefile else None,
        repo=given["repo"],
        ref=given["ref"],
        cachedir=given["cachedir"],
        lockfiles=given["lockfiles"],
        force=given["force_nocache"],
        format=Form.ARCHIVE if form == _ARCHIVE else Form(form) if form else None,
        **_of_image(given),
    )

    def touch(result: Mapping[str, Any]) -> None:
        if given["touch_if_changed"] and result["changed"] and not request.dry_run:
            given["touch_if_changed"].touch()

    return options.run_verb(request, given, show=None if request.dry_run else _show, then=touch)


@click.command("container-encapsulate")
@click.argument("rev", metavar="REF")
@click.argument("image_reference", metavar="IMAGE")
@click.option("--repo", metavar="REPO", required=True, help="Repository with the commit.")
@_shared
def container_encapsulate(rev: str, image_reference: str, **given: Any) -> int:
    """Compose a container image (OCI) of a commit: rpm-ostree's name of 'compose image'.

    REF is a ref of the repository, or a commit. IMAGE is oci:DIRECTORY or oci-archive:FILE.
    """
    transport, _, output = image_reference.partition(":")
    if transport not in [*Form] or not output:
        raise UsageError(
            f"images are written to oci:DIRECTORY or oci-archive:FILE, and not to {image_reference}",
            hint="skopeo takes them further: 'skopeo copy oci:DIRECTORY docker://REGISTRY/NAME:TAG'",
        )
    request = ComposeImage(
        output=output, repo=given["repo"], ref=rev, format=Form(transport), **_of_image(given)
    )
    return options.run_verb(request, given, show=None if request.dry_run else _show)


def _of_image(given: Mapping[str, Any]) -> dict[str, Any]:
    if given["verify"] and given["dry_run"]:
        raise UsageError("--dry-run makes nothing that --verify-reproducible could verify")
    names = ("max_layers", "previous", "initialize", "copy_metadata", "copy_optional", "dry_run", "verify")
    return {name: given[name] for name in names} | {
        "labels": _labels(given["labels"]),
        "compression": Compression(given["compression"]),
    }


def _labels(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (key, sign, _value) in zip(texts, pairs, strict=True) if not (key and sign)]:
        raise UsageError(f"--label: expected KEY=VALUE, got {wrong[0]!r}")
    return {key: value for key, _sign, value in pairs}


def _show(result: Mapping[str, Any]) -> None:
    layers = result["layers"]
    new = [row for row in layers if not row["reused"]]
    sizes = (
        f"{len(layers)} layers, {show_size(result['size'])}; {len(new)} new, {show_size(result['new_size'])}"
    )
    render.lines(f"{result['output']}: {sizes}\n{result['manifest']}")
