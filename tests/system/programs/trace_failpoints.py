"""Runs the request on its standard input, as a worker, and prints the failpoints that it passes to stderr."""

from __future__ import annotations

import sys

from apt_ostree.system import failpoints

failpoints.failpoint = lambda name: print(name, file=sys.stderr, flush=True)

from apt_ostree import worker  # noqa: E402  the modules that it imports take the failpoint above

sys.exit(worker.main())
