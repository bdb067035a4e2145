"""Stands where systemd is on a bus: starts the workers of the service, as programs of tests/unit/fake_core.

The file that is the argument has the name of the function of fake_core that the next worker runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gi.repository import Gio, GLib

XML = """<node><interface name="org.freedesktop.systemd1.Manager">
  <method name="Subscribe"/>
  <method name="GetUnit"><arg type="s" direction="in"/><arg type="o" direction="out"/></method>
  <method name="StartTransientUnit"><arg type="s" direction="in"/><arg type="s" direction="in"/>
    <arg type="a(sv)" direction="in"/><arg type="a(sa(sv))" direction="in"/><arg type="o" direction="out"/>
  </method>
  <method name="KillUnit"><arg type="s" direction="in"/><arg type="s" direction="in"/>
    <arg type="i" direction="in"/></method>
  <method name="StartUnit"><arg type="s" direction="in"/><arg type="s" direction="in"/>
    <arg type="o" direction="out"/></method>
  <signal name="UnitRemoved"><arg type="s"/><arg type="o"/></signal>
</interface></node>"""
PATH, MANAGER = "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"
FUNCTION = Path(sys.argv[1])
units: dict[str, subprocess.Popen[bytes]] = {}
bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)


def start(name: str, properties: Any, descriptors: list[int]) -> None:
    given = dict(properties)
    stdin, stdout = (descriptors[given[f"Standard{one}FileDescriptor"]] for one in ("Input", "Output"))
    function = FUNCTION.read_text().strip()
    command = [sys.executable, "-m", "tests.unit.fake_core", function]
    units[name] = subprocess.Popen(command, stdin=stdin, stdout=stdout)
    GLib.child_watch_add(GLib.PRIORITY_DEFAULT, units[name].pid, lambda *_: ended(name))


def ended(name: str) -> None:
    del units[name]
    bus.emit_signal(None, PATH, MANAGER, "UnitRemoved", GLib.Variant("(so)", (name, "/x")))


def called(*call: Any) -> None:
    method, parameters, invocation = call[4:7]
    values = parameters.unpack()
    if method == "GetUnit" and values[0] not in units:
        invocation.return_dbus_error("org.freedesktop.systemd1.NoSuchUnit", values[0])
        return
    if method == "StartTransientUnit":
        descriptors = invocation.get_message().get_unix_fd_list().steal_fds()
        start(values[0], values[2], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    elif method == "KillUnit":
        units[values[0]].send_signal(values[2])
    elif method == "StartUnit":
        FUNCTION.with_name("started").write_text(values[0])
    has_result = method not in ("Subscribe", "KillUnit")
    invocation.return_value(GLib.Variant("(o)", ("/x",)) if has_result else None)


(interface,) = Gio.DBusNodeInfo.new_for_xml(XML).interfaces
bus.register_object(PATH, interface, called, None, None)
Gio.bus_own_name_on_connection(bus, "org.freedesktop.systemd1", Gio.BusNameOwnerFlags.NONE, None, None)
GLib.MainLoop().run()
