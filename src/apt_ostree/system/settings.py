"""Reads apt-ostree.conf: the vendor's file, the administrator's, then the drop-ins by name."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.model.settings import Settings, parse_settings

_DIRECTORIES = (Path("/usr/lib/apt-ostree"), Path("/etc/apt-ostree"))


def load() -> Settings:
    """Return the settings in effect; UsageError names the file and the key of a mistake."""
    mains = [directory / "apt-ostree.conf" for directory in _DIRECTORIES]
    # A drop-in in /etc hides the vendor's of the same name, as systemd's do (systemd.unit(5)).
    drop_ins = {p.name: p for d in _DIRECTORIES for p in (d / "apt-ostree.conf.d").glob("*.conf")}
    files = [p for p in (*mains, *(drop_ins[name] for name in sorted(drop_ins))) if p.is_file()]
    return parse_settings([(str(path), path.read_text()) for path in files])
