"""Covers /usr as a registered client of the service, and prints which signals of foreign changes follow."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gi.repository import Gio, GLib

NAME, PATH = "org.debian.aptostree1", "/org/debian/aptostree1/Sysroot"
LOWER = Path("/var/tmp/extension")
bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
loop = GLib.MainLoop()


def act(*words: str) -> None:
    """Run a program, and wait until the service tells of it."""
    subprocess.run(words, check=True)
    loop.run()


LOWER.mkdir(exist_ok=True)
bus.signal_subscribe(
    NAME, f"{NAME}.Sysroot", "ForeignChange", PATH, None, Gio.DBusSignalFlags.NONE, lambda *_: loop.quit()
)
options = GLib.Variant("(a{sv})", ({},))
bus.call_sync(
    NAME, PATH, f"{NAME}.Sysroot", "RegisterClient", options, None, Gio.DBusCallFlags.NONE, -1, None
)
act("mount", "-t", "overlay", "foreign", "-o", f"ro,lowerdir={LOWER}:/usr", "/usr")
status = ["apt-ostree", "status", "-J", "$.deployments[0].mounted-over"]
print(subprocess.run(status, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
act("umount", "--lazy", "/usr")
print("uncovered")
