"""Runs the request on its standard input, as a worker; the last line of stderr is its peak memory in kB."""

from __future__ import annotations

import sys
from pathlib import Path

from apt_ostree import worker

worker.main()
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2]
print(peak.split()[0], file=sys.stderr)  # the worker has made that its standard output, too
