"""Serves the fixture repository on port 8099, but for the packages, which never arrive. Prints nothing.

/run/asked is there as soon as somebody has asked for a package.
"""

from __future__ import annotations

import http.server
import os
import threading
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Sends the headers of a package, and then nothing."""

    def do_GET(self) -> None:
        if self.path.endswith(".deb"):
            self.send_response(200)
            self.send_header("Content-Length", str(os.path.getsize(self.path[1:])))
            self.end_headers()
            Path("/run/asked").touch()
            threading.Event().wait()
        super().do_GET()


os.chdir("/var/lib/testbed/repo")
http.server.ThreadingHTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
