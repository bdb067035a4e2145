"""Tries to start and to cancel a transaction at the address of its socket; prints the errors as JSON."""

from __future__ import annotations

import json
import sys

from gi.repository import Gio, GLib

client, none = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT, Gio.DBusCallFlags.NONE
errors = []
for method in ("Start", "Cancel"):
    try:
        peer = Gio.DBusConnection.new_for_address_sync(sys.argv[1], client, None, None)
        peer.call_sync(None, "/", "org.projectatomic.rpmostree1.Transaction", method, None, None, none, -1)
        errors.append("none")
    except GLib.Error as error:
        errors.append(Gio.DBusError.get_remote_error(error))
json.dump(errors, sys.stdout)
