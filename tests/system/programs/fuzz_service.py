"""Calls the service with arguments that make no sense, and with those of others' transactions.

Arguments: how many calls, and a seed. Prints a JSON object: the name of each error -> how often it came.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from typing import Any

from gi.repository import Gio, GLib

NAME = "org.debian.aptostree1"
PATH = "/org/debian/aptostree1"
VERBS = (
    "install",
    "apply-live",
    "usroverlay",
    "run",
    "recover",
    "compose-tree",
    "status",
    "",
    "\u00e9",
    "x" * 999,
)
FIELDS = ("packages", "deploy", "live", "files", "program", "dry_run", "name", "edits", "at", "x")
LEAVES = (None, True, 0, -1, 2**70, 1.5, "", "x", "\ud800", "../..", [], {}, [[]], {"fd": 0, "name": "x"})

#: Object below the service's, interface, method, and the types of its arguments.
TYPED = (
    ("Sysroot", "Sysroot", "GetOS", ["s"]),
    ("Sysroot", "Sysroot", "RegisterClient", ["a{sv}"]),
    ("Sysroot", "Sysroot", "UnregisterClient", ["a{sv}"]),
    ("os/debian", "OS", "Upgrade", ["a{sv}"]),
    ("os/debian", "OS", "UpdateDeployment", ["a{sv}", "a{sv}"]),
    ("os/debian", "OS", "KernelArgs", ["s", "as", "as", "as", "a{sv}"]),
    ("os/debian", "OS", "SetInitramfsState", ["b", "as", "a{sv}"]),
    ("os/debian", "OS", "InitramfsEtc", ["as", "as", "b", "b", "a{sv}"]),
    ("os/debian", "OS", "FinalizeDeployment", ["a{sv}"]),
    ("os/debian", "OS", "Rollback", ["a{sv}"]),
    ("os/debian", "OS", "Cleanup", ["as"]),
    ("os/debian", "OS", "RefreshMd", ["a{sv}"]),
    ("Live", "Live", "Apply", ["a{sv}"]),
    ("Live", "Live", "Rollback", ["a{sv}"]),
    ("Live", "Live", "Confirm", []),
    ("Overlays", "Overlays", "Show", ["s"]),
    ("Overlays", "Overlays", "Edit", ["s", "a{sv}"]),
    ("History", "History", "List", ["u"]),
    ("History", "History", "Show", ["t"]),
)
OPTIONS = (
    "install-packages", "install-local-packages", "uninstall-packages", "no-layering", "apply-live", "force",
    "install-local-fileoverride-packages", "recommends", "allow-failed", "override-policy", "no-initramfs",
    "restart-services", "confirm-within", "generation", "packages", "reset", "create", "remove", "ask", "key",
    "environment", "x",
)  # fmt: skip

dice = random.Random(int(sys.argv[2]))
bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
names: Counter[str] = Counter()


def value(depth: int) -> Any:
    """Return any JSON value."""
    kind = dice.randrange(3) if depth else 0
    if kind == 1:
        return [value(depth - 1) for _ in range(dice.randrange(3))]
    if kind == 2:
        return {dice.choice(FIELDS): value(depth - 1) for _ in range(dice.randrange(4))}
    return dice.choice(LEAVES)


def text() -> str:
    """Return a request: mostly JSON, and mostly an object."""
    whole = json.dumps({dice.choice(FIELDS): value(3) for _ in range(dice.randrange(4))})
    return whole if dice.random() < 0.8 else whole[: dice.randrange(len(whole))]


def variants() -> dict[str, GLib.Variant]:
    """Return options of a typed call."""
    values = (
        ("b", True), ("s", "x"), ("as", ["x", ""]), ("ah", [0]), ("d", -1.0), ("x", -1), ("t", 2**63),
        ("a{sv}", {}), ("ay", b"\xff"), ("s", "needed"), ("v", GLib.Variant("b", False)),
    )  # fmt: skip
    chosen = dice.sample(OPTIONS, dice.randrange(4))
    return {key: GLib.Variant(*dice.choice(values)) for key in chosen}


def typed() -> tuple[str, str, str, GLib.Variant]:
    """Return a call of one of the typed interfaces, mostly with arguments of the right types."""
    place, interface, method, kind = dice.choice(TYPED)
    if dice.random() < 0.1:
        return f"{PATH}/{place}", f"{NAME}.{interface}", method, GLib.Variant("(s)", ("x",))
    made = {
        "s": lambda: dice.choice(VERBS),
        "t": lambda: dice.randrange(2**64),
        "u": lambda: dice.randrange(9),
        "b": lambda: dice.random() < 0.5,
        "as": lambda: dice.sample(OPTIONS, 2),
        "a{sv}": variants,
    }
    return (
        f"{PATH}/{place}", f"{NAME}.{interface}", method,
        GLib.Variant(f"({''.join(kind)})", tuple(made[one]() for one in kind)),
    )  # fmt: skip


def one() -> tuple[str, str, str, GLib.Variant]:
    """Return object, interface, method and arguments of a call."""
    kind = dice.randrange(7)
    if kind > 3:
        return typed()
    if kind == 0:
        return PATH, f"{NAME}.Queries", "Query", GLib.Variant("(ss)", (dice.choice(VERBS), text()))
    if kind == 1:
        path = f"{PATH}/transactions/{dice.randrange(3)}"
        return (
            path,
            f"{NAME}.Transaction",
            dice.choice(["Cancel", "Events", "Answer"]),
            GLib.Variant("()", ()),
        )
    options = {key: GLib.Variant("b", True) for key in dice.sample(["ask", "wait", "x"], dice.randrange(3))}
    if dice.random() < 0.2:
        options["wait"] = GLib.Variant("s", "yes")
    # There are no files with the call: these are not to be taken for the service's own.
    files = dice.sample(range(-1, 20), dice.randrange(3))
    arguments = GLib.Variant("(ssaha{sv})", (dice.choice(VERBS), text(), files, options))
    return f"{PATH}/transactions", f"{NAME}.Transactions", "Start", arguments


for _ in range(int(sys.argv[1])):
    path, interface, method, arguments = one()
    try:
        bus.call_sync(NAME, path, interface, method, arguments, None, 0, 20_000)
        names["none"] += 1
    except GLib.Error as error:
        names[Gio.DBusError.get_remote_error(error) or str(error)] += 1
print(json.dumps(names))
