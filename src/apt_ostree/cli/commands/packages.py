"""install, uninstall, upgrade."""

from __future__ import annotations

from typing import Any

import click

from apt_ostree.cli import options
from apt_ostree.errors import AptOstreeError


@click.command(
    epilog="Examples: apt-ostree install nginx; apt-ostree install -A -y htop; apt-ostree install ./tool.deb"
)
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE...")
@options.transaction
@options.idempotent
@click.option("--allow-inactive", is_flag=True, help="Request packages that the base holds already.")
@options.allow_replacement
@click.option("--uninstall", multiple=True, metavar="PACKAGE", help="Drop a layered package, too.")
def install(packages: tuple[str, ...], idempotent: bool, allow_inactive: bool, **given: Any) -> int:
    """Layer packages on the next deployment.

    A PACKAGE is a name, NAME=VERSION, or the path of a .deb file.
    """
    arguments = {
        "packages": options.absolute_files(packages),
        "uninstall": list(given.pop("uninstall")),
        "allow_replacement": given.pop("allow_replacement"),
        "idempotent": idempotent,
        "allow_inactive": allow_inactive,
    }
    return options.run_transaction("install", arguments, given)


def _requested(_context: click.Context, _parameter: click.Parameter, word: str) -> list[str]:
    """Complete the name of a requested package."""
    from apt_ostree.core import status

    try:
        return [name for name in status.requested_names() if name.startswith(word)]
    except AptOstreeError:
        return []


@click.command(epilog="Examples: apt-ostree uninstall nginx; apt-ostree uninstall --all -A -y")
@click.argument("packages", nargs=-1, metavar="PACKAGE...", shell_complete=_requested)
@options.transaction
@options.idempotent
@click.option("--all", "everything", is_flag=True, help="Drop all layered packages.")
@click.option("--install", multiple=True, metavar="PACKAGE", help="Layer a package, too.")
def uninstall(packages: tuple[str, ...], idempotent: bool, everything: bool, **given: Any) -> int:
    """Drop layered packages from the next deployment."""
    if bool(packages) == everything:
        raise click.UsageError("name packages, or give --all")
    arguments = {
        "packages": list(packages),
        "install": options.absolute_files(given.pop("install")),
        "everything": everything,
        "idempotent": idempotent,
        "allow_replacement": True,  # taking packages away is what was asked for
    }
    return options.run_transaction("uninstall", arguments, given)


@click.command(
    epilog="Examples: apt-ostree upgrade; apt-ostree upgrade --packages-only -A; apt-ostree upgrade --check"
)
@options.transaction
@click.option("--check", is_flag=True, help="Only show what is newer; exit 77 when nothing is.")
@click.option("--preview", is_flag=True, hidden=True)
@click.option(
    "--base-only", is_flag=True, help="Follow the base's remote, keep the layered packages' versions."
)
@click.option(
    "--packages-only", is_flag=True, help="Upgrade packages from the archives, keep the base commit."
)
def upgrade(check: bool, preview: bool, base_only: bool, packages_only: bool, **given: Any) -> int:
    """Upgrade the base from its remote and the packages from the configured archives."""
    if base_only and packages_only:
        raise click.UsageError("--base-only and --packages-only exclude each other")
    looking = check or preview
    if looking:
        given["unchanged_exit_77"] = True
    arguments = {
        "base": not packages_only,
        "packages": not base_only,
        "check": looking,
        "allow_replacement": True,
    }
    return options.run_transaction("upgrade", arguments, given)
