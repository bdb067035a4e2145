"""Runs a command on a terminal as a user, and types a password when it is asked for.

Arguments: the user, the password (^C: Ctrl-C), the command.
Prints a JSON object: the command's exit code and its output.
"""

from __future__ import annotations

import json
import os
import pty
import sys
import time

user, password, *command = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execvp("runuser", ["runuser", "-u", user, "--", *command])
shown = b""
answered = False
while True:
    try:
        shown += os.read(terminal, 4096)
    except OSError:  # EIO: the command has ended
        break
    if b"Password:" in shown and not answered:
        time.sleep(1)  # pkttyagent first prompts, and then discards what was typed before
        os.write(terminal, b"\x03" if password == "^C" else password.encode() + b"\n")
        answered = True
_pid, status = os.waitpid(child, 0)
print(json.dumps({"code": os.waitstatus_to_exitcode(status), "output": shown.decode(errors="replace")}))
