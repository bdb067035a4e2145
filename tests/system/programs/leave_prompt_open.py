"""Runs a command on a terminal, and another one while it asks; then says yes.

Arguments: a script for sh, then the command. Prints a JSON object: the command's exit code and its output.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys


def read_until(terminal: int, text: bytes) -> bytes:
    """Return what the terminal shows until it shows `text`, or until the end."""
    seen = b""
    while text not in seen:
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # EIO: the command has ended
            break
    return seen


script, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execvp(command[0], command)
shown = read_until(terminal, b"Proceed? [y/N]")
subprocess.run(["sh", "-euc", script], check=True, stdout=sys.stderr)
os.write(terminal, b"y\n")
shown += read_until(terminal, b"\0")
_pid, status = os.waitpid(child, 0)
print(json.dumps({"code": os.waitstatus_to_exitcode(status), "output": shown.decode(errors="replace")}))
