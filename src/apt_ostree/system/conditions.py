"""What an automatic update depends on: power, load, the connection, users, and the file that halts it.

What cannot be asked, as it is not there, does not hold an update back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.automatic import Facts, runs_on_battery, users_of
from apt_ostree.system import busctl, files, process, systemd, update_driver

_SUPPLIES = Path("/sys/class/power_supply")
_NETWORK = "org.freedesktop.NetworkManager"
_NETWORK_PATH = "/org/freedesktop/NetworkManager"
_LOGIN = "org.freedesktop.login1"
_LOGIN_PATH = "/org/freedesktop/login1"
_METERED = (1, 3)  # yes, and probably (NMMetered)
_LONGEST_FETCH = 120.0  # seconds


def read() -> Facts:
    """Return the facts of this machine, now."""
    return Facts(
        now=time.time(),
        uptime=time.clock_gettime(time.CLOCK_BOOTTIME),
        metered=busctl.properties(_NETWORK, _NETWORK_PATH, _NETWORK, "Metered") in [[m] for m in _METERED],
        on_battery=runs_on_battery([_supply(path) for path in _supplies()]),
        load=os.getloadavg()[0] / (os.cpu_count() or 1),
        users=users_of(_sessions()),
        machine=files.text_of(Path("/etc/machine-id")).strip(),
        driver=_driver(),
    )


def _driver() -> str:
    driver = update_driver.read()
    return driver.name if driver and systemd.is_unit_active(driver.unit) else ""


def fetch(url: str) -> str | None:
    """Return the text of a URL, fetched as apt fetches its files; None if that fails."""
    with tempfile.TemporaryDirectory(prefix="apt-ostree-") as directory:
        with suppress(LookupError):  # else apt fetches as root
            shutil.chown(directory, "_apt")
        target = Path(directory, "file")
        command = ["/usr/lib/apt/apt-helper", "-qq", "download-file", url, str(target)]
        try:
            process.run(command, what=f"fetch {url}", timeout=_LONGEST_FETCH)
            return target.read_text(errors="replace")
        except (ExternalFailure, OSError):
            return None


def _supplies() -> Sequence[Path]:
    return sorted(_SUPPLIES.iterdir()) if _SUPPLIES.is_dir() else []


def _supply(directory: Path) -> dict[str, str]:
    names = ("type", "online", "status", "scope")
    return {name: files.text_of(directory / name).strip() for name in names if (directory / name).exists()}


def _sessions() -> list[tuple[str, str, str]]:
    """Return user, class and state of each session."""
    answer = busctl.call(_LOGIN, _LOGIN_PATH, f"{_LOGIN}.Manager", "ListSessions")
    rows = answer[0] if answer else []
    sessions = []
    for _id, _uid, user, _seat, path in (row[:5] for row in rows):
        properties = busctl.properties(_LOGIN, path, f"{_LOGIN}.Session", "Class", "State")
        if len(properties) == 2:
            sessions.append((user, *properties))
    return sessions
