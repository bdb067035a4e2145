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
        status = _try([program, *arguments])
        if status == 0:
            sys.exit(0)
    does = os.environ.get(_MODE) == "do" and instead.command and instead.exact
    if does:
        os.execv(_APT_OSTREE, [_APT_OSTREE, *instead.command, *instead.quietly])
    sys.stderr.write(explanation(name, instead))
    sys.exit(0 if instead.holds else NOT_DONE)


def _try(command: list[str]) -> int:
    """Run a program to its end; return its exit code."""
    try:
        return os.spawnv(os.P_WAIT, command[0], command)
    except KeyboardInterrupt:  # the program got the signal, too
        sys.exit(130)


def explanation(name: str, instead: Equivalent) -> str:
    """Return the lines for the user."""
    import shlex

    if instead.holds:
        return f"{name}: {instead.note}\n"
    lines = [f"{name}: not done: /usr is part of a commit of OSTree, and read-only"]
    if instead.command:
        lines.append(f"With apt-ostree: {shlex.join(('apt-ostree', *instead.command))}")
    if instead.note:
        lines.append(instead.note)
    if instead.command and instead.exact:
        lines.append(f"'-A' also applies it to the running system. {_MODE}=do runs the command.")
    return "".join(f"{line}\n" for line in [*lines, "See apt-ostree-wrappers(8)."])
