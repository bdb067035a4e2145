"""What a live update means for each active unit: a table of changes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.never_restart import never
from apt_ostree.model.unitfile import UnitFile, parse
from apt_ostree.model.unitrules import Decision, Facts, Need, decide
from tests.unit.test_unitfile import LINES

NONE, RELOAD, RESTART, STOP = Need.NONE, Need.RELOAD, Need.RESTART, Need.STOP
REFRESH, DEFER, SKIP = Need.REFRESH, Need.DEFER, Need.SKIP

SERVICE = "[Unit]\nDescription=A\n[Service]\nExecStart=/usr/bin/a\n"
RELOADS = f"{SERVICE}ExecReload=/bin/kill -HUP $MAINPID\n"
SOCKET = "[Socket]\nListenStream=80\nBacklog=5\n"
MOUNT = "[Mount]\nWhat=/dev/a\nWhere=/srv\nOptions=ro\n"
TIMER = "[Timer]\nOnCalendar=daily\n"
TARGET = "[Unit]\nWants=a.service\n"

IGNORED = ("Documentation", "OnFailure", "OnSuccess", "OnFailureJobMode", "IgnoreOnIsolate",
           "SourcePath", "StopWhenUnneeded", "RefuseManualStart", "RefuseManualStop", "AllowIsolate",
           "CollectMode")  # fmt: skip

Text = str | tuple[str, ...] | None


def unit(text: Text) -> UnitFile | None:
    """A text, or a fragment with its drop-ins."""
    return None if text is None else parse((text,) if isinstance(text, str) else text)


def plus(text: str, *lines: str, section: str = "Unit") -> str:
    return f"{text}[{section}]\n" + "".join(f"{line}\n" for line in lines)


def decision(name: str, old: Text, new: Text, **facts) -> Decision | None:
    return decide(Facts(name, old=unit(old), new=unit(new), **facts))


#: id -> name, old text, new text, further facts, what it needs.
CHANGES: dict[str, tuple[str, Text, Text, dict[str, object], Need | None]] = {
    # what makes no difference
    "the same": ("a.service", SERVICE, SERVICE, {}, None),
    "nothing known": ("a.service", None, None, {}, None),
    "comments": ("a.service", SERVICE, f"# x\n\n; y\n{SERVICE}", {}, None),
    "blanks": ("a.service", SERVICE, SERVICE.replace("=", " = "), {}, None),
    "install": ("a.service", SERVICE, plus(SERVICE, "WantedBy=x.target", section="Install"), {}, None),
    "description": ("a.service", SERVICE, SERVICE.replace("=A", "=B"), {}, None),
    **{
        f"ignored {key}": ("a.service", SERVICE, plus(SERVICE, f"{key}=x"), {}, None)
        for key in IGNORED
    },
    "ignored key in another section": ("a.service", SERVICE, f"{SERVICE}Documentation=x\n", {}, RESTART),
    "a hint alone": ("a.service", SERVICE, plus(SERVICE, "X-StopIfChanged=yes"), {}, None),
    "somebody's key": ("a.service", SERVICE, plus(SERVICE, "X-Snappy=yes"), {}, None),
    "somebody's section": ("a.service", SERVICE, plus(SERVICE, "Key=yes", section="X-Vendor"), {}, None),
    "inactive": ("a.service", SERVICE, f"{SERVICE}User=a\n", {"active": False, "stale": ("/x",)}, None),
    "inactive and gone": ("a.service", SERVICE, None, {"active": False, "removed": True}, None),
    # syntax
    "list grown": ("a.service", f"{SERVICE}Environment=A=1\n", f"{SERVICE}Environment=A=1\nEnvironment=B=2\n",
                   {}, RESTART),
    "list reset": ("a.service", f"{SERVICE}Environment=A=1\n",
                   f"{SERVICE}Environment=B=2\nEnvironment=\nEnvironment=A=1\n", {}, None),
    "reset of nothing": ("a.service", SERVICE, f"{SERVICE}Environment=\n", {}, None),
    "drop-in added": ("a.service", SERVICE, (SERVICE, "[Service]\nUser=a\n"), {}, RESTART),
    "drop-in removed": ("a.service", (SERVICE, "[Service]\nUser=a\n"), SERVICE, {}, RESTART),
    "drop-in merged": ("a.service", (SERVICE, "[Service]\nUser=a\n"), f"{SERVICE}User=a\n", {}, None),
    "drop-in resets": ("a.service", (SERVICE, "[Service]\nExecStart=\nExecStart=/usr/bin/b\n"),
                       (SERVICE.replace("bin/a", "bin/c"), "[Service]\nExecStart=\nExecStart=/usr/bin/b\n"),
                       {}, None),
    "drop-in with ignored keys": ("a.service", SERVICE, (SERVICE, "[Unit]\nDescription=C\n"), {}, None),
    "drop-in without section": ("a.service", SERVICE, (SERVICE, "User=a\n"), {}, None),
    "continuation folded": ("a.service", f"{SERVICE}Environment=A  B\n",
                            f"{SERVICE}Environment=A \\\n# x\nB\n",
                            {}, None),
    "continuation changed": ("a.service", f"{SERVICE}Environment=A  B\n", f"{SERVICE}Environment=A \\\n C\n",
                             {}, RESTART),
    # services
    "command changed": ("a.service", SERVICE, SERVICE.replace("bin/a", "bin/b"), {}, RESTART),
    "setting removed": ("a.service", f"{SERVICE}User=a\n", SERVICE, {}, RESTART),
    "unit setting": ("a.service", SERVICE, plus(SERVICE, "After=b.service"), {}, RESTART),
    "file new for an active unit": ("a.service", None, SERVICE, {}, RESTART),
    "instance of a template": ("a@1.service", SERVICE, f"{SERVICE}User=%i\n", {}, RESTART),
    "instance, ignorable": ("a@1.service", SERVICE, SERVICE.replace("=A", "=%i"), {}, None),
    "instance gone with its template": ("a@1.service", SERVICE, None, {"removed": True}, STOP),
    **{
        f"type {kind}": ("a.service", SERVICE, f"{SERVICE}User=a\n", {"unit_type": kind}, RESTART)
        for kind in ("simple", "exec", "notify", "notify-reload", "forking", "dbus", "idle")
    },
    "type changed": ("a.service", SERVICE, f"{SERVICE}Type=notify\n", {"unit_type": "simple"}, RESTART),
    "oneshot": ("a.service", SERVICE, f"{SERVICE}User=a\n", {"unit_type": "oneshot", "stale": ("/x",)}, None),
    "oneshot, package restarts": ("a.service", SERVICE, SERVICE,
                                  {"unit_type": "oneshot", "package_restarts": True}, None),
    **{
        f"lasting oneshot, {what}": ("a.service", old, new, {
            "unit_type": "oneshot", "remain_after_exit": True, **facts,
        }, need)
        for what, old, new, facts, need in (
            ("changed", SERVICE, f"{SERVICE}User=a\n", {}, SKIP),
            ("changed, package restarts", SERVICE, f"{SERVICE}User=a\n", {"package_restarts": True}, RESTART),
            ("package restarts", SERVICE, SERVICE, {"package_restarts": True}, RESTART),
            ("only reload", SERVICE, RELOADS, {}, RELOAD),
            ("gone", SERVICE, None, {"removed": True}, STOP),
            ("unchanged", SERVICE, SERVICE, {"old_view": True}, None),
            ("stale", SERVICE, SERVICE, {"stale": ("/x",)}, SKIP),
        )
    },
    # reload
    "ExecReload added": ("a.service", SERVICE, RELOADS, {}, RELOAD),
    "ExecReload changed": ("a.service", RELOADS, RELOADS.replace("HUP", "USR1"),
                           {"can_reload": True}, RELOAD),
    "ExecReload removed": ("a.service", RELOADS, SERVICE, {"can_reload": True}, None),
    "ExecReload removed, more changed": ("a.service", RELOADS, f"{SERVICE}User=a\n",
                                         {"can_reload": True}, RESTART),
    "ExecReload changed, more changed": ("a.service", SERVICE, f"{RELOADS}User=a\n",
                                         {"can_reload": True}, RESTART),
    "ExecReload and description": ("a.service", SERVICE, RELOADS.replace("=A", "=B"), {}, RELOAD),
    "ExecReload added, stale code": ("a.service", SERVICE, RELOADS, {"stale": ("/usr/lib/l.so",)}, RESTART),
    "reload trigger": ("a.service", RELOADS, plus(RELOADS, "X-Reload-Triggers=1"),
                       {"can_reload": True}, RELOAD),
    "reload trigger in service": ("a.service", RELOADS, f"{RELOADS}X-Reload-Triggers=1\n", {}, RELOAD),
    "reload trigger, notify-reload": ("a.service", f"{SERVICE}Type=notify-reload\n",
                                      f"{SERVICE}Type=notify-reload\nX-Reload-Triggers=1\n", {}, RELOAD),
    "reload trigger, reload from elsewhere": ("a.service", SERVICE, f"{SERVICE}X-Reload-Triggers=1\n",
                                              {"can_reload": True}, RELOAD),
    "reload trigger, cannot": ("a.service", SERVICE, plus(SERVICE, "X-Reload-Triggers=1"), {}, RESTART),
    "reload trigger, no longer can": ("a.service", RELOADS, plus(SERVICE, "X-Reload-Triggers=1"),
                                      {"can_reload": True}, RESTART),
    "restart trigger": ("a.service", RELOADS, plus(RELOADS, "X-Restart-Triggers=1"), {}, RESTART),
    # hints
    "X-ReloadIfChanged": ("a.service", RELOADS, plus(RELOADS, "X-ReloadIfChanged=true", "After=b"),
                          {}, RELOAD),
    "X-ReloadIfChanged, stale": ("a.service", *[plus(RELOADS, "X-ReloadIfChanged=1")] * 2, {"stale": ("/x",)},
                                 RELOAD),
    "X-ReloadIfChanged, cannot": ("a.service", SERVICE, plus(SERVICE, "X-ReloadIfChanged=on", "After=b"), {},
                                  RESTART),
    "X-ReloadIfChanged in the old file": ("a.service", plus(RELOADS, "X-ReloadIfChanged=yes"),
                                          f"{RELOADS}User=a\n", {}, RESTART),
    "X-ReloadIfChanged, package leaves it": ("a.service", RELOADS,
                                             plus(RELOADS, "X-ReloadIfChanged=1", "After=b"),
                                             {"package_restarts": False}, RELOAD),
    "X-ReloadIfChanged, never": ("docker.service", RELOADS, plus(RELOADS, "X-ReloadIfChanged=1", "After=b"),
                                 {}, DEFER),
    "X-RestartIfChanged=no": ("a.service", SERVICE, f"{SERVICE}User=a\nX-RestartIfChanged=no\n", {}, SKIP),
    "X-RestartIfChanged=yes": ("a.service", SERVICE, f"{SERVICE}User=a\nX-RestartIfChanged=yes\n",
                               {}, RESTART),
    "X-RestartIfChanged is no boolean": ("a.service", SERVICE, f"{SERVICE}User=a\nX-RestartIfChanged=nope\n",
                                         {}, RESTART),
    "X-RestartIfChanged=no, stale": ("a.service", *[plus(SERVICE, "X-RestartIfChanged=OFF")] * 2,
                                     {"stale": ("/x",)}, SKIP),
    "X-RestartIfChanged=no, old view": ("a.service", *[plus(SERVICE, "X-RestartIfChanged=0")] * 2,
                                        {"old_view": True}, SKIP),
    "X-RestartIfChanged=no, package restarts": ("a.service", *[plus(SERVICE, "X-RestartIfChanged=false")] * 2,
                                                {"package_restarts": True}, SKIP),
    "X-RestartIfChanged=no, only reload": ("a.service", SERVICE, plus(RELOADS, "X-RestartIfChanged=no"),
                                           {}, RELOAD),
    "X-OnlyManualStart": ("a.service", SERVICE, plus(SERVICE, "X-OnlyManualStart=yes", "After=b"), {}, SKIP),
    "X-StopIfChanged": ("a.service", SERVICE, plus(SERVICE, "X-StopIfChanged=yes", "After=b"), {}, STOP),
    "X-StopIfChanged=no": ("a.service", SERVICE, plus(SERVICE, "X-StopIfChanged=no", "After=b"), {}, RESTART),
    "X-StopOnRemoval=no": ("a.service", plus(SERVICE, "X-StopOnRemoval=no"), None, {"removed": True}, SKIP),
    "X-NotSocketActivated": ("a.service", SERVICE, f"{SERVICE}User=a\nX-NotSocketActivated=yes\n",
                             {"sockets": ("a.socket",)}, RESTART),
    "RefuseManualStop": ("a.service", SERVICE, f"{SERVICE}User=a\n", {"refuse_manual_stop": True}, SKIP),
    "RefuseManualStop in the new": ("a.service", SERVICE, plus(SERVICE, "RefuseManualStop=1", "After=b"),
                                    {}, SKIP),
    "RefuseManualStart in the new": ("a.service", SERVICE, plus(SERVICE, "RefuseManualStart=1", "After=b"),
                                     {}, SKIP),
    "RefuseManualStop, stale": ("a.service", SERVICE, SERVICE,
                                {"refuse_manual_stop": True, "stale": ("/x",)}, DEFER),
    "RefuseManualStop, only reload": ("a.service", SERVICE, RELOADS, {"refuse_manual_stop": True}, RELOAD),
    # gone
    "removed": ("a.service", SERVICE, None, {"removed": True}, STOP),
    "removed, nobody said so": ("a.service", SERVICE, None, {}, STOP),
    "masked": ("a.service", SERVICE, SERVICE, {"removed": True, "stale": ("/x",)}, STOP),
    "removed, refuses": ("a.service", SERVICE, None, {"removed": True, "refuse_manual_stop": True}, DEFER),
    "removed, package: no": ("a.service", SERVICE, None, {"removed": True, "package_restarts": False}, STOP),
    "timer removed": ("a.timer", TIMER, None, {"removed": True}, STOP),
    "socket removed": ("a.socket", SOCKET, None, {"removed": True}, STOP),
    "mount removed": ("srv.mount", MOUNT, None, {"removed": True}, STOP),
    "busy mount removed": ("tmp.mount", MOUNT, None, {"removed": True}, DEFER),
    "slice removed": ("a.slice", "[Slice]\nMemoryMax=1\n", None, {"removed": True}, NONE),
    "never, removed": ("docker.service", SERVICE, None, {"removed": True}, DEFER),
    # stale code, scripts, configuration, views
    "stale": ("a.service", SERVICE, SERVICE, {"stale": ("/usr/lib/l.so",)}, RESTART),
    "stale, no file known": ("a.service", None, None, {"stale": ("/usr/lib/l.so",)}, RESTART),
    "stale, X-StopIfChanged": ("a.service", *[plus(SERVICE, "X-StopIfChanged=yes")] * 2,
                               {"stale": ("/x",)}, STOP),
    "stale, can reload": ("a.service", RELOADS, RELOADS, {"stale": ("/x",), "can_reload": True}, RESTART),
    "stale scope": ("run-x.scope", None, None, {"stale": ("/x",)}, DEFER),
    "stale session": ("session-3.scope", None, None, {"stale": ("/x",)}, DEFER),
    "stale PID 1": ("init.scope", None, None, {"stale": ("/x",)}, NONE),
    "script": ("a.service", SERVICE, SERVICE, {"programs": ("/usr/bin/a",)}, RESTART),
    "script, can reload": ("a.service", RELOADS, RELOADS, {"programs": ("/usr/bin/a",), "can_reload": True},
                           RESTART),
    "helper of reload": ("a.service", RELOADS, RELOADS, {"programs": ("/usr/bin/kill",)}, None),
    "program, no file known": ("a.service", None, None, {"programs": ("/usr/bin/a",)}, RESTART),
    "configuration": ("a.service", SERVICE, SERVICE, {"configuration": ("/etc/a",)}, RESTART),
    "configuration, can reload": ("a.service", RELOADS, RELOADS, {"configuration": ("/etc/a",)}, RELOAD),
    "configuration, loses reload": ("a.service", RELOADS, SERVICE,
                                    {"configuration": ("/etc/a",), "can_reload": True}, RESTART),
    "environment file, can reload": ("a.service", *[f"{RELOADS}EnvironmentFile=-/etc/a\n"] * 2,
                                     {"configuration": ("/etc/a",), "can_reload": True}, RESTART),
    "old view": ("a.service", SERVICE, SERVICE, {"old_view": True}, REFRESH),
    "old view and description": ("a.service", SERVICE, SERVICE.replace("=A", "=B"),
                                 {"old_view": True}, REFRESH),
    "old view and stale": ("a.service", SERVICE, SERVICE, {"old_view": True, "stale": ("/x",)}, RESTART),
    "old view, never": ("systemd-logind.service", SERVICE, SERVICE, {"old_view": True}, SKIP),
    "old view, own": ("a.service", SERVICE, SERVICE, {"old_view": True, "own": True}, SKIP),
    # what the package says
    "package restarts": ("a.service", SERVICE, SERVICE, {"package": "a", "package_restarts": True}, RESTART),
    "package restarts, only reload": ("a.service", SERVICE, RELOADS, {"package_restarts": True}, RESTART),
    "package restarts a timer": ("a.timer", TIMER, TIMER, {"package_restarts": True}, RESTART),
    "package restarts a socket": ("a.socket", SOCKET, SOCKET, {"package_restarts": True}, None),
    "package does not know": ("a.service", SERVICE, SERVICE, {"package": "a"}, None),
    **{
        f"package leaves it, {what}": ("a.service", SERVICE, new, {
            "package": "a", "package_restarts": False, **facts,
        }, need)
        for what, new, facts, need in (
            ("unchanged", SERVICE, {}, None),
            ("changed file", f"{SERVICE}User=a\n", {}, SKIP),
            ("script", SERVICE, {"programs": ("/usr/bin/a",)}, SKIP),
            ("configuration", SERVICE, {"configuration": ("/etc/a",)}, SKIP),
            ("own stale code", SERVICE, {"stale": ("/usr/bin/a",)}, SKIP),
            ("another's stale code", SERVICE, {"stale": ("/usr/lib/l.so",), "package": ""}, RESTART),
            ("old view", SERVICE, {"old_view": True}, REFRESH),
        )
    },
    # the administrator, ourselves, the list
    "override restart": ("a.service", RELOADS, plus(RELOADS, "X-ReloadIfChanged=yes", "After=b"),
                         {"override": RESTART}, RESTART),
    "override reload": ("a.service", RELOADS, RELOADS, {"stale": ("/x",), "override": RELOAD}, RELOAD),
    "override reload, cannot": ("a.service", SERVICE, SERVICE, {"stale": ("/x",), "override": RELOAD}, DEFER),
    "override skip": ("a.service", SERVICE, f"{SERVICE}User=a\n", {"override": SKIP}, SKIP),
    "override defer": ("a.service", SERVICE, f"{SERVICE}User=a\n", {"override": DEFER}, DEFER),
    "override of an untouched unit": ("a.service", SERVICE, SERVICE, {"override": RESTART}, None),
    "override of the list": ("docker.service", SERVICE, f"{SERVICE}User=a\n", {"override": RESTART}, RESTART),
    "override against systemd": ("a.service", SERVICE, f"{SERVICE}User=a\n",
                                 {"override": RESTART, "refuse_manual_stop": True}, DEFER),
    "override restart of what is gone": ("a.service", SERVICE, None,
                                         {"override": RESTART, "removed": True}, STOP),
    "override restart of a gone mount": ("tmp.mount", MOUNT, None,
                                         {"override": RESTART, "removed": True}, DEFER),
    "override cannot restart a slice": ("a.slice", "[Slice]\nMemoryMax=1\n", "[Slice]\nMemoryMax=2\n",
                                        {"override": RESTART}, NONE),
    "override restart of a swap": ("a.swap", "[Swap]\nWhat=/a\n", "[Swap]\nWhat=/b\n",
                                   {"override": RESTART}, RESTART),
    "override skip of what is gone": ("a.service", SERVICE, None, {"override": SKIP, "removed": True}, SKIP),
    "override of an old view": ("a.service", SERVICE, SERVICE,
                                {"override": RESTART, "old_view": True}, RESTART),
    "override reload of an old view": ("a.service", RELOADS, RELOADS, {"override": RELOAD, "old_view": True},
                                       REFRESH),
    "override does not unmount /usr": ("usr.mount", MOUNT, f"{MOUNT}Type=ext4\n",
                                       {"override": RESTART}, DEFER),
    "override cannot restart a scope": ("run-x.scope", None, None,
                                        {"stale": ("/x",), "override": RESTART}, DEFER),
    "override cannot restart PID 1": ("init.scope", None, None,
                                      {"stale": ("/x",), "override": RESTART}, NONE),
    "own": ("a.service", SERVICE, f"{SERVICE}User=a\n", {"own": True}, DEFER),
    "own, override": ("a.service", SERVICE, f"{SERVICE}User=a\n", {"own": True, "override": RESTART}, DEFER),
    "own, gone": ("a.service", SERVICE, None, {"own": True, "removed": True}, DEFER),
    "own, untouched": ("a.service", SERVICE, SERVICE, {"own": True}, None),
    "never, changed": ("docker.service", SERVICE, f"{SERVICE}User=a\n", {}, DEFER),
    "never, stale": ("user@1000.service", SERVICE, SERVICE, {"stale": ("/x",)}, DEFER),
    "never, package restarts": ("docker.service", SERVICE, SERVICE, {"package_restarts": True}, DEFER),
    "never, ignorable": ("docker.service", SERVICE, SERVICE.replace("=A", "=B"), {}, None),
    "never, by another name": ("new-bus.service", SERVICE, None,
        {"removed": True, "aliases": ("dbus.service",)}, DEFER),
    "never, untouched": ("dbus.service", SERVICE, SERVICE, {}, None),
    "never, only reload": ("docker.service", SERVICE, RELOADS, {}, DEFER),
    "the bus reloads": ("dbus.service", RELOADS, RELOADS, {"configuration": ("/etc/dbus-1/x",)}, RELOAD),
    "the bus is stale": ("dbus.service", RELOADS, RELOADS,
                         {"configuration": ("/etc/d",), "stale": ("/x",)}, DEFER),
    # sockets
    "socket stays open": ("a.socket", SOCKET, SOCKET.replace("=5", "=6"), {}, SKIP),
    "socket, ignorable": ("a.socket", SOCKET, plus(SOCKET, "Description=B"), {}, None),
    "socket listens elsewhere": ("a.socket", SOCKET, SOCKET.replace("=80", "=81"), {}, RESTART),
    "socket mode": ("a.socket", SOCKET, f"{SOCKET}SocketMode=0600\n", {}, RESTART),
    "socket group": ("a.socket", SOCKET, f"{SOCKET}SocketGroup=adm\n", {}, RESTART),
    "socket, package says no": ("a.socket", SOCKET, f"{SOCKET}SocketUser=a\n",
                                {"package_restarts": False}, SKIP),
    "socket of the list": ("docker.socket", SOCKET, f"{SOCKET}SocketUser=a\n", {}, DEFER),
    "socket of the list stays open": ("dbus.socket", SOCKET, SOCKET.replace("=5", "=6"), {}, SKIP),
    "socket of the list by Service=": ("a.socket", SOCKET, f"{SOCKET}ListenFIFO=/a\nService=docker.service\n",
                                       {}, DEFER),
    "socket of the list by Accept=": ("lxc.socket", SOCKET, f"{SOCKET}ListenFIFO=/a\nAccept=yes\n",
                                      {}, DEFER),
    "socket of the list removed": ("dbus.socket", SOCKET, None, {"removed": True}, DEFER),
    # other kinds
    "timer": ("a.timer", TIMER, TIMER.replace("daily", "weekly"), {}, RESTART),
    "timer, ignorable": ("a.timer", TIMER, plus(TIMER, "Description=B"), {}, None),
    "path": ("a.path", "[Path]\nPathExists=/a\n", "[Path]\nPathExists=/b\n", {}, RESTART),
    "slice": ("a.slice", "[Slice]\nMemoryMax=1\n", "[Slice]\nMemoryMax=2\n", {}, NONE),
    "swap": ("a.swap", "[Swap]\nWhat=/a\n", "[Swap]\nWhat=/b\n", {}, DEFER),
    "automount": ("a.automount", "[Automount]\nWhere=/a\n", "[Automount]\nWhere=/b\n", {}, DEFER),
    "mount": ("srv.mount", MOUNT, MOUNT.replace("dev/a", "dev/b"), {}, RESTART),
    "mount options": ("srv.mount", MOUNT, MOUNT.replace("ro", "rw"), {}, RELOAD),
    "mount options and more": ("srv.mount", MOUNT, f"{MOUNT}Options=x\nType=ext4\n", {}, RESTART),
    "root": ("-.mount", MOUNT, f"{MOUNT}Type=ext4\n", {}, DEFER),
    "root options": ("-.mount", MOUNT, MOUNT.replace("ro", "rw"), {}, RELOAD),
    "usr": ("usr.mount", MOUNT, f"{MOUNT}Type=ext4\n", {}, DEFER),
    "usr options": ("usr.mount", MOUNT, MOUNT.replace("ro", "rw"), {}, DEFER),
    "tmp": ("tmp.mount", MOUNT, f"{MOUNT}Type=tmpfs\n", {}, DEFER),
    "target": ("a.target", TARGET, plus(TARGET, "Wants=b.service"), {}, NONE),
    "target, ignorable": ("a.target", TARGET, plus(TARGET, "Description=B"), {}, None),
    "target, X-StopOnReconfiguration": ("a.target", TARGET, plus(TARGET, "Wants=b",
                                        "X-StopOnReconfiguration=yes"),
                                        {}, STOP),
    "special target": ("multi-user.target", TARGET, plus(TARGET, "Wants=b", "X-StopOnReconfiguration=yes"),
                       {}, NONE),
    "device": ("a.device", SERVICE, f"{SERVICE}User=a\n", {}, None),
}  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "facts", "need"), CHANGES.values(), ids=CHANGES)
def test_decide(name: str, old: Text, new: Text, facts: dict[str, object], need: Need | None):
    found = decision(name, old, new, **facts)
    assert (found.need if found else None) == need
    if found:
        assert found.unit == name
        assert found.reason and not found.reason.endswith(".")


@pytest.mark.parametrize(
    ("name", "old", "new", "again"),
    [
        ("a.service", SERVICE, plus(SERVICE, "X-StopIfChanged=yes", "After=b"), True),
        ("a.target", TARGET, plus(TARGET, "Wants=b", "X-StopOnReconfiguration=yes"), True),
        ("a.service", SERVICE, None, False),
    ],
)
def test_what_is_stopped_first_is_started_again_unless_gone(name: str, old: Text, new: Text, again: bool):
    found = decision(name, old, new)
    assert found and (found.need, found.start_again) == (STOP, again)


def test_evidence_is_that_of_the_need():
    facts = {"stale": ("/usr/lib/l.so",), "programs": ("/usr/bin/a",), "configuration": ("/etc/a",)}
    found = decision("a.service", RELOADS, f"{RELOADS}User=a\n", **facts)
    assert found and found.evidence == ("/usr/lib/l.so", "/usr/bin/a")
    found = decision("a.service", RELOADS, RELOADS, configuration=("/etc/a",), old_view=True)
    assert found and found.evidence == ("/etc/a",)


NEVER = """
    systemd-logind.service user@1000.service user-runtime-dir@0.service systemd-user-sessions.service
    getty@tty1.service serial-getty@ttyS0.service session-12.scope emergency.service rescue.service
    dbus.service dbus-broker.service gdm.service gdm3.service sddm.service lightdm.service greetd.service
    xdm.service NetworkManager.service wpa_supplicant.service wpa_supplicant@wlan0.service
    ModemManager.service debug-shell.service openvpn@home.service openvpn-client@a.service
    strongswan.service strongswan-starter.service bird.service
    frr.service networking.service libvirtd.service virtlogd.service virtlockd.service virtqemud.service
    lxc.service lxcfs.service docker.service containerd.service podman.service podman-restart.service
    systemd-nspawn@deb.service machine-deb.scope zfs-fuse.service iscsid.service multipathd.service
    lvm2-lvmpolld.service lvm2-monitor.service mdmon@md0.service sshfs@x.service bluetooth.service
    usbguard.service systemd-random-seed.service systemd-remount-fs.service systemd-update-utmp.service
    systemd-journal-flush.service systemd-fsck@dev-a.service systemd-fsck-root.service
    systemd-backlight@a.service systemd-udev-settle.service systemd-tmpfiles-setup.service
    systemd-tmpfiles-setup-dev.service systemd-sysext.service ostree-finalize-staged.service
    apt-daily.service apt-daily-upgrade.service rc-local.service unattended-upgrades.service
"""


@pytest.mark.parametrize("name", NEVER.split())
def test_never(name: str):
    assert never(name)


LIVE = """
    ssh.service ssh@1.service sshd.service systemd-journald.service systemd-networkd.service
    systemd-resolved.service systemd-timesyncd.service systemd-udevd.service cron.service nginx.service
    apache2.service postgresql@17-main.service rsyslog.service chrony.service polkit.service dbus.socket
    user.slice usergroup.service getty.target mydocker.service docker.socket apt-daily.timer
    apt-ostreed.service
"""


@pytest.mark.parametrize("name", LIVE.split())
def test_not_never(name: str):
    assert never(name) is None


# --- properties

_files = LINES.map(lambda lines: parse(["\n".join(lines)]))
_paths = st.sampled_from([(), ("/usr/bin/a",), ("/etc/a",)])
_facts = st.builds(
    Facts,
    name=st.sampled_from(
        ["a.service", "a@1.service", "docker.service", "a.socket", "docker.socket", "a.timer", "srv.mount",
         "-.mount", "a.target", "a.slice", "init.scope", "a.scope", "session-1.scope", "a.swap", "odd"]
    ),
    active=st.booleans(),
    unit_type=st.sampled_from(["", "simple", "oneshot", "notify-reload"]),
    remain_after_exit=st.booleans(),
    can_reload=st.booleans(),
    refuse_manual_stop=st.booleans(),
    old=st.none() | _files,
    new=st.none() | _files,
    removed=st.booleans(),
    stale=_paths,
    programs=_paths,
    configuration=_paths,
    package=st.sampled_from(["", "a"]),
    package_restarts=st.sampled_from([None, True, False]),
    old_view=st.booleans(),
    own=st.booleans(),
    override=st.sampled_from([None, RESTART, RELOAD, SKIP, DEFER]),
)  # fmt: skip


@given(_facts)
def test_decisions_keep_the_promises(facts: Facts):
    found = decide(facts)
    if not facts.active:
        assert found is None
    if found is None:
        return
    live = (RESTART, STOP, RELOAD)
    assert found.need in (NONE, SKIP, DEFER, REFRESH, *live)
    assert not found.start_again or found.need is STOP
    assert not re.search(r"[.\n]$", found.reason)
    if facts.own or facts.name == "init.scope":
        assert found.need not in live
    if never(facts.name) and facts.override in (None, SKIP, DEFER):
        assert found.need in (DEFER, SKIP)
    if facts.name.endswith((".scope", ".slice")):
        assert found.need is not RESTART
    if facts.removed:
        assert found.need not in (RESTART, RELOAD)
    if facts.override in (SKIP, DEFER) and not facts.own and facts.name != "init.scope":
        assert found.need is facts.override


@given(_facts.filter(lambda facts: facts.new is not None))
def test_what_nothing_touches_is_left_alone(facts: Facts):
    quiet = Facts(facts.name, old=facts.new, new=facts.new, own=facts.own, override=facts.override,
                  can_reload=facts.can_reload, sockets=("a.socket",), package="a",
                  package_restarts=False)  # fmt: skip
    assert decide(quiet) is None
