"""`apt-ostree compose publish`: publishes commits in a directory for a web server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.model.requests.compose import ComposePublish


@click.command(
    epilog="Example: apt-ostree compose publish --repo=/srv/repo --gpg-sign=os@example.org /srv/www/os"
)
@click.argument("directory", metavar="DIR")
@click.option("-r", "--repo", metavar="REPO", required=True, help="Repository with the commits.")
@click.option(
    "--ref",
    "refs",
    metavar="REF",
    multiple=True,
    help="Publish this ref; may be repeated. The default is all refs of REPO.",
)
@click.option("--image", is_flag=True, help="Publish a container image of the newest commits, too.")
@click.option(
    "--gpg-sign",
    "sign",
    multiple=True,
    metavar="KEY-ID",
    help="Sign the summary and the newest commits with this key of the GnuPG keyring; may be repeated.",
)
@click.option("--gpg-homedir", metavar="DIR", help="Directory of the GnuPG keyring; the default is your own.")
@click.option(
    "--keep", type=click.IntRange(1), metavar="N", help="Keep the newest N commits of each ref; prune others."
)
@click.option(
    "--keep-days",
    type=click.IntRange(1),
    metavar="N",
    help="Keep the commits of the last N days of each ref; prune others.",
)
@click.option(
    "--static-deltas",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Publish the static deltas to the newest commits that save bytes, or none.",
)
@options.unchanged_exit_77
@options.output
def publish(directory: str, refs: tuple[str, ...], **given: Any) -> int:
    """Publish commits in the directory DIR, for machines to pull from a web server.

    DIR becomes an OSTree repository (DIR/repo) with a summary and static deltas, and with --image an OCI
    image layout for each ref (DIR/image/REF). At DIR there is nothing, an empty directory, or what was
    published before, which is brought up to date. Machines may pull all the while. With --keep and
    --keep-days a commit stays if one of them keeps it.
    """
    names = ("repo", "image", "sign", "gpg_homedir", "keep", "keep_days")
    request = ComposePublish(
        directory=directory,
        refs=refs,
        static_deltas=given["static_deltas"] == "auto",
        **{name: given[name] for name in names},
    )
    return options.run_verb(request, given, show=_show)


def _show(result: Mapping[str, Any]) -> None:
    render.lines("\n".join(f"{ref} {row['commits'][0]}" for ref, row in result["refs"].items()))
