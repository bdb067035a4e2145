#!/usr/bin/python3
"""Install packages live through apt-ostreed, and follow what happens: install-live.py PACKAGE...

Nothing of apt-ostree is imported: /usr/share/dbus-1/interfaces/org.debian.aptostree1.xml says it all.
"""

import json
import sys

from gi.repository import Gio, GLib

NAME, PATH = "org.debian.aptostree1", "/org/debian/aptostree1/transactions"
bus, loop = Gio.bus_get_sync(Gio.BusType.SYSTEM), GLib.MainLoop()
events: dict[int, dict] = {}


def call(path, interface, method, arguments, reply):
    """Call a method and return what it returns."""
    flags = Gio.DBusCallFlags.ALLOW_INTERACTIVE_AUTHORIZATION  # polkit may ask the user
    return bus.call_sync(NAME, path, f"{NAME}.{interface}", method, arguments, reply, flags, -1).unpack()


def take(number, text):
    """Print the events in their order; the last one is the end."""
    events.setdefault(number, json.loads(text))
    while (event := events.get(take.seen)) is not None:
        take.seen += 1
        print(event["event"], event.get("title") or event.get("text") or event.get("message") or "")
        if event["event"] == "end":
            loop.quit()


take.seen = 0
request = json.dumps({"packages": sys.argv[1:], "deploy": {"live": {}}})
arguments = GLib.Variant("(ssaha{sv})", ("install", request, [], {}))
(transaction,) = call(PATH, "Transactions", "Start", arguments, GLib.VariantType("(o)"))
bus.signal_subscribe(
    NAME, f"{NAME}.Transaction", "Event", transaction, None, 0, lambda *row: take(*row[5].unpack())
)
# What was told before we listened.
(earlier,) = call(transaction, "Transaction", "Events", GLib.Variant("(t)", (0,)), GLib.VariantType("(as)"))
for number, text in enumerate(earlier):
    take(number, text)
if not any(event["event"] == "end" for event in events.values()):
    loop.run()
end = events[max(events)]
sys.exit(0 if end["ok"] else end["message"])
