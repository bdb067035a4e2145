"""What a package's maintainer scripts do with its units on an upgrade, as far as they say so plainly.

Read, never run: the scripts ran in a sandbox where there is no systemd. debhelper writes them in few shapes
(dh_installsystemd(1), dh_installinit(1)); what is written by hand is understood where it calls systemctl.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_INVOKE = re.compile(r"^\s*(?:deb-systemd-invoke|_?systemctl)\s+(?P<words>[^|&;>]*)", re.MULTILINE)
_INIT = re.compile(r"^\s*invoke-rc\.d\s+(?P<words>[^|&;>]*)", re.MULTILINE)
_ACTION_VARIABLE = re.compile(r"_dh_action=\"?(?P<action>[a-z-]+)")
_RESTARTS = frozenset(
    {"restart", "try-restart", "reload-or-restart", "try-reload-or-restart", "force-reload"}
)
_REMOVING = re.compile(r"\[\s*\"\$1\"\s*=\s*\"?remove\"?\s*\]")


def restarts(postinst: str, prerm: str = "") -> dict[str, bool]:
    """Return the units that an upgrade restarts (True), and those that it only starts (False)."""
    variable = {found["action"] for found in _ACTION_VARIABLE.finditer(postinst)}
    found: dict[str, bool] = {}
    for action, unit in _calls(postinst):
        actions = variable if "_dh_action" in action else {action}
        if actions & _RESTARTS:
            found[unit] = True
        elif "start" in actions:
            found.setdefault(unit, False)
    if not _REMOVING.search(prerm):  # it stops them on an upgrade as well, so that the start is a restart
        for action, unit in _calls(prerm):
            if action == "stop" and unit in found:
                found[unit] = True
    return found


def _calls(script: str) -> Iterator[tuple[str, str]]:
    """Yield (action, unit) of each call that acts on units."""
    for match in _INVOKE.finditer(script):
        words = [word for word in _words(match["words"]) if not word.startswith("-")]
        for unit in words[1:]:
            yield words[0], unit if "." in unit else f"{unit}.service"
    for match in _INIT.finditer(script):
        words = [word for word in _words(match["words"]) if not word.startswith("-")]
        if len(words) > 1:
            yield words[1], f"{words[0]}.service"


def _words(text: str) -> list[str]:
    return text.replace("'", "").replace('"', "").replace("\\", "").split()
