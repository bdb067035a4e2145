"""The program of apt-ostreed.service: `python3 -I -m apt_ostree.daemon [DIRECTORY]`.

With a directory, it serves rpm-ostree's clients, too, and has sockets for them there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from apt_ostree.daemon.service import serve

serve(*map(Path, sys.argv[1:2]))
