"""`apt-ostree ex`: rpm-ostree's group of experimental commands; hidden."""

from __future__ import annotations

import click

from apt_ostree.cli.commands.initramfs import initramfs_etc
from apt_ostree.cli.commands.live import apply_live


@click.group(hidden=True)
def ex() -> None:
    """Commands that rpm-ostree calls experimental."""


ex.add_command(apply_live)
ex.add_command(apply_live, "livefs")  # its first name
ex.add_command(initramfs_etc)
