"""The program of apt-ostreed.service: `daemon.main [DIRECTORY]`, see apt_ostree.program.

With a directory, it serves rpm-ostree's clients, too, and has sockets for them there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from apt_ostree.daemon.service import serve


def main() -> None:
    """Serve until there is nothing to do."""
    serve(*map(Path, sys.argv[1:2]))
