"""Reads a big file below USR, and the FILES of a package through its directory, until SIGTERM.

Prints "reading" when it begins, and at the end a JSON object: how often it read, how often that failed, and
how often what it read was of two generations.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

usr, files = sys.argv[1], int(sys.argv[2])
result = {"reads": 0, "failed": 0, "mixed": 0}
ended = threading.Event()


def generations_of_package() -> set[bytes]:
    """Return what the files of the package hold; the directory is opened once."""
    directory = os.open(f"{usr}/share/package", os.O_RDONLY | os.O_DIRECTORY)
    generations = set()
    for number in range(files):
        file = os.open(f"file{number}", os.O_RDONLY, dir_fd=directory)
        generations.add(os.read(file, 10))
        os.close(file)
    os.close(directory)
    return generations


signal.signal(signal.SIGTERM, lambda *_: ended.set())
print("reading", flush=True)
while not ended.is_set():
    try:
        result["mixed"] += len(set(Path(f"{usr}/share/big").read_text())) != 1
        result["mixed"] += len(generations_of_package()) != 1
    except OSError:
        result["failed"] += 1
    result["reads"] += 1
print(json.dumps(result))
