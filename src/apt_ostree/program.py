"""Starts a program of the product: `python3 -IS .../apt_ostree/program.py NAME [ARGUMENT...]`.

NAME is a module here; its `main` returns the exit code, or None for 0. Python searches for modules in its own
library, in Debian's packages and beside this one only: not in the current directory, not where variables of
the environment say, not in /usr/local. Without its site module it also starts in half of the time.
"""

import sys


def command(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that starts a program."""
    return (sys.executable, "-IS", __file__, name, *arguments)


if __name__ == "__main__":
    import importlib
    import os

    sys.path += [__file__.rsplit("/", 2)[0], "/usr/lib/python3/dist-packages"]
    del sys.argv[0]
    code = importlib.import_module(f"apt_ostree.{sys.argv[0]}").main()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is released and written. Taking the interpreter apart would take as long as a small change: 40 ms.
    os._exit(code or 0)
