"""Reads apt-ostree.conf: the vendor's file, the administrator's, then the drop-ins by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apt_ostree.errors import UsageError

if TYPE_CHECKING:  # `status` mostly finds no file
    from apt_ostree.model.settings import Settings

_DIRECTORIES = (Path("/usr/lib/apt-ostree"), Path("/etc/apt-ostree"))
_OFF = "none"


def load() -> Settings:
    """Return the settings in effect; UsageError names the file and the key of a mistake."""
    from apt_ostree.model.settings import parse_settings

    return parse_settings([(str(path), path.read_text()) for path in _files()])


def automatic_policy() -> str:
    """Return the policy of automatic updates; none if there is a mistake, which each run tells."""
    try:
        return load().automatic_policy if _files() else _OFF
    except UsageError:
        return _OFF


def _files() -> list[Path]:
    mains = [directory / "apt-ostree.conf" for directory in _DIRECTORIES]
    # A drop-in in /etc hides the vendor's of the same name, as systemd's do (systemd.unit(5)).
    drop_ins = {p.name: p for d in _DIRECTORIES for p in (d / "apt-ostree.conf.d").glob("*.conf")}
    return [p for p in (*mains, *(drop_ins[name] for name in sorted(drop_ins))) if p.is_file()]
