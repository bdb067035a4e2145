"""What a boot waits for: shows the overlays at once if that is prepared, else has the command line do it.

apt-ostree-recover.service runs it before any other service. It imports as little as it can.
"""

from __future__ import annotations

import os

from apt_ostree.core.boot import resume
from apt_ostree.errors import AptOstreeError

_COMMAND = ("/usr/bin/apt-ostree", "recover", "--at=boot")


def main() -> None:
    """Show what the last boot showed, or become `apt-ostree recover`."""
    try:
        if resume.resumed():
            return
    except (AptOstreeError, OSError, ValueError, TypeError) as error:  # the last two: another version's note
        from apt_ostree.system import journal

        journal.send((f"what the last boot showed cannot be shown at once: {error}",))
    os.execv(_COMMAND[0], _COMMAND)
