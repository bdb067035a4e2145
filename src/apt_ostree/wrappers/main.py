"""Runs a tool that was called, or explains or does what apt-ostree does instead."""

from __future__ import annotations

import os
import sys

from apt_ostree.wrappers.equivalents import Equivalent
from apt_ostree.wrappers.table import TOOLS, decide

#: The exit code of what was not done, as for apt-ostree's Refused.
NOT_DONE = 3
_APT_OSTREE = "/usr/bin/apt-ostree"
_MODE = "APT_OSTREE_WRAP"


def main() -> None:
    """Act on `TOOL PROGRAM [ARGUMENT]...` in sys.argv. PROGRAM is the path of the tool itself."""
    name, program, *arguments = sys.argv[1:]
    instead = decide(name, arguments, os.environ)
    if instead is None:
        os.execv(program, [name, *arguments])
    if TOOLS[name].tried:
        sys.exit(_try(name, [program, *arguments], instead))
    does = os.environ.get(_MODE) == "do" and instead.command and instead.exact
    if does:
        os.execv(_APT_OSTREE, [_APT_OSTREE, *instead.command, *instead.quietly])
    sys.stderr.write(explanation(name, instead))
    sys.exit(0 if instead.holds else NOT_DONE)


def _try(name: str, command: list[str], instead: Equivalent) -> int:
    """Run a tool to its end; return its exit code. Only the user can tell why it failed, if it did."""
    try:
        status = os.spawnv(os.P_WAIT, command[0], command)
    except KeyboardInterrupt:  # the tool got the signal, too
        return 130
    if status < 0:
        return 128 - status
    if status and instead.command:
        sys.stderr.write(explanation(name, instead))
    return status


def explanation(name: str, instead: Equivalent) -> str:
    """Return the lines for the user."""
    import shlex

    if instead.holds:
        return f"{name}: {instead.note}\n"
    reason = "/usr is part of a commit of OSTree, and read-only"
    lines = [f"{name}: not done: {reason}"]
    with_ours = "With apt-ostree"
    if TOOLS[name].tried:
        lines = [f"{name}: it failed, and {reason}"]
        with_ours = "If that is why"
    if instead.command:
        lines.append(f"{with_ours}: {shlex.join(('apt-ostree', *instead.command))}")
    if instead.note:
        lines.append(instead.note)
    if instead.command and instead.exact:
        lines.append(f"'-A' also applies it to the running system. {_MODE}=do runs the command.")
    return "".join(f"{line}\n" for line in [*lines, "See apt-ostree-wrappers(8)."])
