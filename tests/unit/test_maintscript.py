"""Which units maintainer scripts restart, from the forms that Debian's packages have."""

from __future__ import annotations

import pytest

from apt_ostree.model import maintscript

#: dh_installsystemd(1): the action is in a variable.
_DEBHELPER = """
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ]; then
\tif [ -d /run/systemd/system ]; then
\t\tsystemctl --system daemon-reload >/dev/null || true
\t\tif [ -n "$2" ]; then
\t\t\t_dh_action={action}
\t\telse
\t\t\t_dh_action=start
\t\tfi
\t\tdeb-systemd-invoke $_dh_action 'one.service' 'two.socket' >/dev/null || true
\tfi
fi
"""
_STOPS_ON_REMOVAL = """
if [ -z "$DPKG_ROOT" ] && [ "$1" = remove ] && [ -d /run/systemd/system ] ; then
\tdeb-systemd-invoke stop 'one.service' >/dev/null || true
fi
"""
_STOPS_ALWAYS = """
if [ -d /run/systemd/system ]; then
\tdeb-systemd-invoke stop one.service >/dev/null || true
fi
"""


def test_debhelpers_restart():
    script = _DEBHELPER.format(action="restart")
    assert maintscript.restarts(script) == {"one.service": True, "two.socket": True}


def test_no_restart_on_upgrade():
    script = _DEBHELPER.format(action="start")
    assert maintscript.restarts(script) == {"one.service": False, "two.socket": False}


@pytest.mark.parametrize(("prerm", "restarted"), [(_STOPS_ON_REMOVAL, False), (_STOPS_ALWAYS, True)])
def test_a_stop_before_an_upgrade_makes_a_start_a_restart(prerm: str, restarted: bool):
    script = _DEBHELPER.format(action="start")
    assert maintscript.restarts(script, prerm)["one.service"] is restarted


@pytest.mark.parametrize(
    ("line", "units"),
    [
        ("invoke-rc.d foo restart || exit $?", {"foo.service": True}),
        ("invoke-rc.d --quiet foo start", {"foo.service": False}),
        ("invoke-rc.d foo", {}),
        ("systemctl try-restart foo", {"foo.service": True}),
        (
            'systemctl --no-block restart "foo@bar.service" bar.timer',
            {"foo@bar.service": True, "bar.timer": True},
        ),
        ("systemctl daemon-reload", {}),
        ("systemctl reload foo.service", {}),
        ("deb-systemd-invoke --user restart foo.service", {}),
        ("systemctl --global restart foo.service", {}),
        ("# systemctl restart foo", {}),
        ("echo systemctl restart foo", {}),
    ],
)
def test_calls_in_scripts_of_packages(line: str, units: dict[str, bool]):
    assert maintscript.restarts(f"#!/bin/sh\nset -e\n    {line}\n") == units
