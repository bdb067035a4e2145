"""Calls typed methods of the service, one after the other, and prints as JSON how each ended and all signals.

The calls are JSON on standard input: [[OBJECT, METHOD, [[TYPE, VALUE], ...]], ...]. An object is the last
part of its path, and its interface has the same name, but for OS. A value of a{sv} is {KEY: [TYPE, VALUE]},
and one of ah is [PATH, ...].
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gi.repository import Gio, GLib

NAME, PATH = "org.debian.aptostree1", "/org/debian/aptostree1"
bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
loop = GLib.MainLoop()
passed = Gio.UnixFDList.new()
signals: list[Any] = []


def typed(kind: str, value: Any) -> Any:
    if kind == "ah":
        with ExitStack() as opened:
            files = [opened.enter_context(Path(path).open("rb")) for path in value]
            return GLib.Variant(kind, [passed.append(file.fileno()) for file in files])
    if kind == "a{sv}":
        return GLib.Variant(kind, {key: typed(*item) for key, item in value.items()})
    return GLib.Variant(kind, value)


def call(path: str, interface: str, method: str, *arguments: Any) -> Any:
    values = GLib.Variant.new_tuple(*arguments)
    where = (NAME, path, interface, method, values, None, Gio.DBusCallFlags.NONE, -1)
    return bus.call_with_unix_fd_list_sync(*where, passed, None)[0].unpack()


def received(_bus: Any, _sender: str, path: str, interface: str, name: str, values: Any) -> None:
    signals.append([path.rpartition("/")[2], name, values.unpack()])
    if name == "Finished":
        loop.quit()


def place_of(name: str) -> tuple[str, str]:
    if name == "OS":
        (path,) = call(f"{PATH}/Sysroot", f"{NAME}.Sysroot", "GetOS", GLib.Variant("s", ""))
        return path, f"{NAME}.OS"
    return f"{PATH}/{name}", f"{NAME}.{name}"


call(*place_of("Sysroot"), "RegisterClient", GLib.Variant("a{sv}", {}))
bus.signal_subscribe(NAME, None, None, None, None, Gio.DBusSignalFlags.NONE, received)
results: list[Any] = []
for name, method, arguments in json.load(sys.stdin):
    try:
        result = call(*place_of(name), method, *(typed(*argument) for argument in arguments))
    except GLib.Error as error:
        results.append(Gio.DBusError.get_remote_error(error))
        continue
    results.append(list(result))
    if method not in ("List", "Show"):
        loop.run()
GLib.timeout_add(2000, loop.quit)  # for what is announced afterwards
loop.run()
json.dump({"results": results, "signals": signals}, sys.stdout)
