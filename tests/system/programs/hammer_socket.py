"""Asks fx-socket without a pause until /run/stop-hammer is there.

Prints how often nobody listened, and then each different answer on a line.
"""

from __future__ import annotations

import os
import socket
import time

refused, answers = 0, set()
while not os.path.exists("/run/stop-hammer"):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect("/run/fx-socket")
            client.sendall(b"hello\n")
            answers.add(client.recv(100).decode().strip())
        except ConnectionRefusedError:
            refused += 1
        except (ConnectionResetError, BrokenPipeError):  # taken, and then cut: its server was stopped
            pass
    time.sleep(0.002)
print(refused, *sorted(answers), sep="\n")
