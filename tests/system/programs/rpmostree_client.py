"""Does what cockpit's page does: looks at rpm-ostree's objects, then calls methods of the booted stateroot.

The calls are JSON on standard input: [[METHOD, [[TYPE, VALUE], ...]], ...]; a value of a{sv} is
{KEY: [TYPE, VALUE]}, and one of ah is [PATH, ...]. One that returns an address is followed to its end.
Printed as JSON: what there was before the calls; for each call its values, with the signals of its socket, or
the name of its error; and the properties that were announced.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gi.repository import Gio, GLib

NAME, PATH = "org.projectatomic.rpmostree1", "/org/projectatomic/rpmostree1"
SYSROOT = (f"{PATH}/Sysroot", f"{NAME}.Sysroot")
CLIENT, NONE = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT, Gio.DBusSignalFlags.NONE
bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
loop = GLib.MainLoop()
passed = Gio.UnixFDList.new()
announced: dict[str, Any] = {}


def typed(kind: str, value: Any) -> Any:
    if kind == "ah":
        with ExitStack() as opened:
            files = [opened.enter_context(Path(path).open("rb")) for path in value]
            return GLib.Variant(kind, [passed.append(file.fileno()) for file in files])
    if kind == "a{sv}":
        return GLib.Variant(kind, {key: typed(*item) for key, item in value.items()})
    return GLib.Variant(kind, value)


def call(path: str, interface: str, method: str, *arguments: Any, name: str = NAME) -> Any:
    values = GLib.Variant.new_tuple(*arguments)
    where = (name, path, interface, method, values, None, Gio.DBusCallFlags.NONE, -1)
    return bus.call_with_unix_fd_list_sync(*where, passed, None)[0].unpack()


def changed(*signal: Any) -> None:
    announced.update(signal[5].unpack()[1])


def follow(address: str) -> list[Any]:
    """Start a transaction; return its signals until the connection is closed."""
    heard: list[Any] = []
    peer = Gio.DBusConnection.new_for_address_sync(address, CLIENT, None, None)
    peer.signal_subscribe(None, None, None, "/", None, NONE, lambda *s: heard.append([s[4], s[5].unpack()]))
    peer.connect("closed", lambda *_: loop.quit())
    peer.call_sync(None, "/", f"{NAME}.Transaction", "Start", None, None, Gio.DBusCallFlags.NONE, -1)
    loop.run()
    return heard


call("/org/freedesktop/DBus", "org.freedesktop.DBus", "StartServiceByName", GLib.Variant("s", NAME),
     GLib.Variant("u", 0), name="org.freedesktop.DBus")  # fmt: skip
(xml,) = call(PATH, "org.freedesktop.DBus.Introspectable", "Introspect")
bus.signal_subscribe(NAME, "org.freedesktop.DBus.Properties", None, None, None, NONE, changed)
(sysroot,) = call(SYSROOT[0], "org.freedesktop.DBus.Properties", "GetAll", GLib.Variant("s", SYSROOT[1]))
call(*SYSROOT, "RegisterClient", typed("a{sv}", {"id": ["s", "cockpit-ostree"]}))
(objects,) = call(PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
said: dict[str, Any] = {"sysroot": sysroot, "objects": objects, "results": []}
for method, arguments in json.load(sys.stdin):
    try:
        values = call(sysroot["Booted"], f"{NAME}.OS", method, *(typed(*one) for one in arguments))
        said["results"].append(list(values))
        if values[-1:] and isinstance(values[-1], str) and values[-1].startswith("unix:"):
            said["results"][-1].append(follow(values[-1]))
    except GLib.Error as error:
        said["results"].append(Gio.DBusError.get_remote_error(error))
GLib.timeout_add(2000, loop.quit)  # for what is announced afterwards
loop.run()
json.dump({**said, "announced": announced}, sys.stdout)
