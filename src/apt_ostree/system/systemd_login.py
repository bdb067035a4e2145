"""systemd-logind: inhibits a shutdown during a change (systemd-inhibit(1))."""

from __future__ import annotations

from contextlib import AbstractContextManager

from apt_ostree.system import process

_PATIENCE = 1.0  # seconds; logind answers in milliseconds, or hangs, and then nothing can shut down by it


def inhibited(why: str) -> AbstractContextManager[None]:
    """Inhibit shutdown and sleep inside the block, if logind runs and answers. why: shown to users."""
    options = ["--what=shutdown:sleep", "--who=apt-ostree", f"--why={why}", "--mode=block"]
    # A program, because with a bus that hangs no library gives up in a second. cat ends with this process.
    return process.attached(["systemd-inhibit", *options, "cat"], patience=_PATIENCE)
