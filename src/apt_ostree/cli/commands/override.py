"""override: other packages in place of the base's; and reset."""

from __future__ import annotations

from typing import Any

import click

from apt_ostree.cli import options
from apt_ostree.cli.commands.packages import asks
from apt_ostree.model.requests.packages import Override, Reset


@click.group()
def override() -> None:
    """Remove or replace packages of the base.

    An override is kept through upgrades and rebases until it is reset.
    """


@override.command(
    epilog="Examples: apt-ostree override remove nano; "
    "apt-ostree override remove systemd-timesyncd --install=chrony -A"
)
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE...")
@options.deploy
@click.option("--replace", "replacements", multiple=True, metavar="PACKAGE", help="Also replace a package.")
@options.also_install
@options.also_uninstall
def remove(packages: tuple[str, ...], replacements: tuple[str, ...], **given: Any) -> int:
    """Remove packages of the base from the next deployment.

    All packages that need them have to be named, too.
    """
    return _run(given, replacements, remove=packages)


@override.command(epilog="Examples: apt-ostree override replace ./bash_5.3-1_amd64.deb")
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE...")
@options.deploy
@click.option("--remove", "removals", multiple=True, metavar="PACKAGE", help="Also remove a package.")
@options.also_install
@options.also_uninstall
def replace(packages: tuple[str, ...], removals: tuple[str, ...], **given: Any) -> int:
    """Replace packages of the base in the next deployment.

    A PACKAGE is NAME=VERSION, or the path of a .deb file.
    """
    return _run(given, packages, remove=removals)


@override.command(epilog="Examples: apt-ostree override reset nano; apt-ostree override reset --all")
@click.argument("packages", nargs=-1, metavar="PACKAGE...", shell_complete=options.complete_requested)
@options.deploy
@click.option("-a", "--all", "everything", is_flag=True, help="Reset all overrides.")
@options.also_install
@options.also_uninstall
def reset(packages: tuple[str, ...], everything: bool, **given: Any) -> int:
    """Give the next deployment the base's own packages again, in the version that the base has."""
    if bool(packages) == everything:
        raise click.UsageError("name packages, or give --all")
    return _run(given, (), reset=packages, reset_all=everything)


@click.command(
    "reset",
    epilog="Examples: apt-ostree reset; apt-ostree reset --overrides; apt-ostree reset --install=htop -r",
)
@options.deploy
@click.option("-l", "--overlays", "layers", is_flag=True, help="Only drop the layered packages.")
@click.option("-o", "--overrides", is_flag=True, help="Only reset the packages of the base.")
@click.option("-i", "--initramfs", is_flag=True, help="Only take the initramfs of the base.")
@options.also_install
@options.also_uninstall
def reset_all(layers: bool, overrides: bool, initramfs: bool, **given: Any) -> int:
    """Deploy the base as it is, without layered packages, overrides, commands and upgraded packages."""
    deploy = options.deploy_options(given, allow_replacement=True)
    with options.open_also(given) as packages:
        request = Reset(layers=layers, overrides=overrides, initramfs=initramfs, **packages, deploy=deploy)
        return options.run_verb(request, given, ask=asks(given))


def _run(given: dict[str, Any], replacements: tuple[str, ...], **changes: Any) -> int:
    deploy = options.deploy_options(given, allow_replacement=True)  # the user has asked for that
    opened = options.open_packages
    with opened(replacements) as (names, files), opened(given["install"]) as (layers, layer_files):
        request = Override(
            replace=names,
            files=files,
            install=layers,
            install_files=layer_files,
            recommends=options.recommends_of(given),
            uninstall=given["uninstall"],
            deploy=deploy,
            **changes,
        )
        return options.run_verb(request, given, ask=asks(given))
