"""Prints, as a JSON list, how long in seconds it takes to import libostree and to run `apt-ostree status`.

Twenty pairs, one after the other, so that both suffer alike from what else runs.
"""

from __future__ import annotations

import json
import subprocess
import time

IMPORT = "import gi; gi.require_version('OSTree', '1.0'); from gi.repository import OSTree"


def once(*argv: str) -> float:
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


print(json.dumps([(once("python3", "-c", IMPORT), once("apt-ostree", "status")) for _ in range(20)]))
