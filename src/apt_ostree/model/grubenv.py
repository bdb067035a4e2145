"""The environment block of GRUB, grubenv: variables that the boot menu keeps from one boot to the next.

It always has the same size, because GRUB writes into the blocks of the file and cannot allot others.
"""

from __future__ import annotations

from collections.abc import Mapping

_HEAD = "# GRUB Environment Block\n"
_SIZE = 1024

#: Attempts that the newest deployment has left. It is not there unless they are counted.
COUNTER = "boot_counter"
#: Attempts that a deployment is given; 0 does not count.
ATTEMPTS = "boot_attempts"
MOST_ATTEMPTS = 9

#: The kernel argument with which the menu tells of the counting, and its values.
ARGUMENT = "apt-ostree.boot"
COUNTED, GAVE_UP = "counted", "gave-up"


def parse(text: str) -> dict[str, str]:
    """Return the variables of a block, with their values as written. Raises ValueError for other texts."""
    if not text.startswith(_HEAD) or len(text) != _SIZE:
        raise ValueError("not an environment block of GRUB")
    rows = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, separator, value in rows if separator}


def format_block(variables: Mapping[str, str]) -> str:
    """Return a block. Raises ValueError if the variables are too long for it."""
    text = _HEAD + "".join(f"{name}={value}\n" for name, value in variables.items())
    if len(text) > _SIZE:
        raise ValueError("the variables are too long for an environment block")
    return text.ljust(_SIZE, "#")


def started(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables when another deployment is to be tried."""
    attempts = variables.get(ATTEMPTS, "0")
    return stopped(variables) | ({} if attempts == "0" else {COUNTER: attempts})


def stopped(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables when the newest deployment needs no counting any more."""
    return {name: value for name, value in variables.items() if name != COUNTER}
