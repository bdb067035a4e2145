"""Messages for users who log in (pam_motd(8))."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.system import files

_DIRECTORY = Path("/run/motd.d")


def write(name: str, text: str) -> None:
    """Replace the message of a name; without a text, remove it."""
    path = _DIRECTORY / name
    if text:
        _DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.replace_text(path, text)
    else:
        path.unlink(missing_ok=True)
