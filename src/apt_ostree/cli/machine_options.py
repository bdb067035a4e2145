"""The options of what a machine has of its own on its disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from apt_ostree.cli.options import Command
from apt_ostree.model.grubenv import MOST_ATTEMPTS

_OF_MACHINE = (
    click.option("--hostname", metavar="NAME", help="Name of the machine."),
    click.option("--user", metavar="NAME", help="Add a user who has no password and may use sudo."),
    click.option(
        "--ssh-key",
        metavar="FILE",
        help="Let the holder of a public key log in, as that user or, without --user, as root.",
    ),
    click.option(
        "--console",
        "consoles",
        multiple=True,
        metavar="CONSOLE",
        help="Console of the kernel and the boot menu, such as ttyS0; may be repeated.",
    ),
)
_OF_IMAGE = (
    click.option(
        "--image",
        metavar="IMAGE",
        help="Container image with the commit, such as ostree-image-signed:docker://HOST/NAME:TAG.",
    ),
    click.option(
        "--target-image",
        metavar="IMAGE",
        help="Container image that the machine follows; the default is that of --image.",
    ),
)
_OF_BOOT = (
    click.option(
        "--karg",
        "kernel_arguments",
        multiple=True,
        metavar="ARGUMENT",
        help="Add a kernel argument to those of the tree; may be repeated.",
    ),
    click.option(
        "--boot-attempts",
        metavar="N",
        type=click.IntRange(0, MOST_ATTEMPTS),
        default=3,
        show_default=True,
        help="Try a new deployment N times before the one before it is booted again; 0: for ever.",
    ),
)
_BOOT_NAMES = ("kernel_arguments", "boot_attempts")
_COMMIT_NAMES = ("repo", "ref", "image", "target_image")
_NAMES = ("hostname", "user", "ssh_key", "consoles", *_BOOT_NAMES)


def machine_options(command: Command) -> Command:
    """Return the command with the options of a request that makes the disk of a machine."""
    for option in reversed((*_OF_MACHINE, *_OF_BOOT)):
        command = option(command)
    return command


def boot_options(command: Command) -> Command:
    """Return the command with the options of a request that makes the boot menu of a machine."""
    for option in reversed(_OF_BOOT):
        command = option(command)
    return command


def image_options(command: Command) -> Command:
    """Return the command with the options of a request that can make a system of a container image."""
    for option in reversed(_OF_IMAGE):
        command = option(command)
    return command


def commit_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that makes a system of a commit; UsageError if they do not fit."""
    if given["image"] and (given["repo"] or given["ref"]):
        raise click.UsageError("--image goes without --repo and --ref")
    if given["target_image"] and not given["image"]:
        raise click.UsageError("--target-image goes with --image")
    return {name: given[name] for name in _COMMIT_NAMES}


def machine_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of such a request."""
    return {name: given[name] for name in _NAMES}


def boot_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that makes the boot menu."""
    return {name: given[name] for name in _BOOT_NAMES}
