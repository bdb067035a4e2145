"""systemd-logind: inhibits a shutdown during a change (systemd-inhibit(1)), and tells of what it knows.

Uses ctypes: python3-systemd has no sd_session_get_remote_host(3).
"""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager

from apt_ostree.system import busctl, process

_SERVICE, _PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
_OURSELVES = "apt-ostree"
_PATIENCE = 1.0  # seconds; logind answers in milliseconds, or hangs, and then nothing can shut down by it


def inhibited(why: str) -> AbstractContextManager[None]:
    """Inhibit shutdown and sleep inside the block, if logind runs and answers. why: shown to users."""
    options = ["--what=shutdown:sleep", f"--who={_OURSELVES}", f"--why={why}", "--mode=block"]
    # A program, because with a bus that hangs no library gives up in a second. cat ends with this process.
    return process.attached(["systemd-inhibit", *options, "cat"], patience=_PATIENCE)


def blocking_shutdown() -> list[str]:
    """Return who inhibits a shutdown, and why, each "WHO (WHY)"; our own transactions are not told."""
    answer = busctl.call(_SERVICE, _PATH, f"{_SERVICE}.Manager", "ListInhibitors")
    return [
        f"{who} ({why})"
        for what, who, why, mode, *_ids in (answer[0] if answer else ())
        if "shutdown" in what.split(":") and mode == "block" and who != _OURSELVES
    ]


def remote_host(session: str) -> str:
    """Return the host from which a session was opened, as PAM told systemd-logind; "" if it is local."""
    try:
        library = ctypes.CDLL("libsystemd.so.0")
        text = ctypes.c_char_p()
        if library.sd_session_get_remote_host(session.encode(), ctypes.byref(text)) < 0:
            return ""
        host = (text.value or b"").decode(errors="replace")
        ctypes.CDLL(None).free(text)
    except (OSError, AttributeError):
        return ""
    return host
