"""Starts a program of the product: `python3 -IS .../apt_ostree/program.py NAME [ARGUMENT...]`.

NAME is a module here; its `main` returns the exit code, or None for 0. Python searches for modules in its own
library, in Debian's packages and beside this one only: not in the current directory, not where variables of
the environment say, not in /usr/local. Without its site module it also starts in half of the time.
"""

import gc
import importlib
import os
import sys
from types import ModuleType
from typing import NoReturn


def command(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that starts a program."""
    return (sys.executable, "-IS", __file__, name, *arguments)


def start(name: str) -> NoReturn:
    """Run a program in this process, to its end."""
    _open_streams()
    code = imported(f"apt_ostree.{name}").main()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is released and written. Taking the interpreter apart would take as long as a small change: 40 ms.
    os._exit(code or 0)


def imported(name: str) -> ModuleType:
    """Import and return a module, and what it imports, that stay until the program ends."""
    # Looking for what can be freed among them takes a sixth of the time.
    gc.disable()
    module = importlib.import_module(name)
    gc.freeze()
    gc.enable()
    return module


def _open_streams() -> None:
    """Open standard streams that the caller has closed: else the next file that is opened takes a place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


if __name__ == "__main__":
    sys.path += [__file__.rsplit("/", 2)[0], "/usr/lib/python3/dist-packages"]
    del sys.argv[0]
    start(sys.argv[0])
