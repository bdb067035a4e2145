"""Runs an apt-ostree command line, its worker in this process; prints the failpoints it passes to stderr."""

from __future__ import annotations

import io
import json
import sys
from typing import Any, NoReturn

from apt_ostree.system import failpoints

failpoints.failpoint = lambda name: print(name, file=sys.stderr, flush=True)

from apt_ostree import worker  # noqa: E402  the modules that it imports take the failpoint above
from apt_ostree.cli import client, main  # noqa: E402


def call(request: Any, _view: object, **_how: object) -> NoReturn:
    """Stand where the client starts a worker."""
    line = json.dumps({"verb": request.verb, "request": request.to_json()})
    sys.exit(worker.serve(io.StringIO(f"{line}\n"), sys.stdout))


client.call = call
main.run(sys.argv[1:])
