"""Finds the units that a package's maintainer scripts restart on an upgrade, from their text.

The scripts have no effect on units, as they run in a sandbox without systemd. Those of debhelper have few
forms (dh_installsystemd(1), dh_installinit(1)); in others, calls of systemctl are recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_INVOKE = re.compile(r"^\s*(?:deb-systemd-invoke|_?systemctl)\s+(?P<arguments>[^|&;>]*)", re.MULTILINE)
_INIT = re.compile(r"^\s*invoke-rc\.d\s+(?P<arguments>[^|&;>]*)", re.MULTILINE)
_OF_USERS = re.compile(r"(?<!\S)--(?:user|global)(?!\S)")
_ACTION_VARIABLE = re.compile(r"_dh_action=\"?(?P<action>[a-z-]+)")
_RESTARTS = frozenset(
    {"restart", "try-restart", "reload-or-restart", "try-reload-or-restart", "force-reload"}
)
_REMOVING = re.compile(r"\[\s*\"\$1\"\s*=\s*\"?remove\"?\s*\]")


def restarts(postinst: str, prerm: str = "") -> dict[str, bool]:
    """Return unit -> whether an upgrade restarts it (True) or only starts it (False)."""
    variable = {match["action"] for match in _ACTION_VARIABLE.finditer(postinst)}
    restarted: dict[str, bool] = {}
    for action, unit in _calls(postinst):
        actions = variable if "_dh_action" in action else {action}
        if actions & _RESTARTS:
            restarted[unit] = True
        elif "start" in actions:
            restarted.setdefault(unit, False)
    if not _REMOVING.search(prerm):  # it also stops units on an upgrade, so that a start is a restart
        for action, unit in _calls(prerm):
            if action == "stop" and unit in restarted:
                restarted[unit] = True
    return restarted


def _calls(script: str) -> Iterator[tuple[str, str]]:
    """Yield (action, unit) of each call of systemctl or invoke-rc.d for the system's units."""
    for match in _INVOKE.finditer(script):
        if _OF_USERS.search(match["arguments"]):
            continue
        arguments = _arguments(match["arguments"])
        for unit in arguments[1:]:
            yield arguments[0], unit if "." in unit else f"{unit}.service"
    for match in _INIT.finditer(script):
        arguments = _arguments(match["arguments"])
        if len(arguments) > 1:
            yield arguments[1], f"{arguments[0]}.service"


def _arguments(text: str) -> list[str]:
    """Return the arguments of a call without options."""
    arguments = text.replace("'", "").replace('"', "").replace("\\", "").split()
    return [argument for argument in arguments if not argument.startswith("-")]
