"""What users and maintainer scripts cannot do on a booted machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from tests.system.livehost import NOBODY, Host, program, wait_for

PACKAGE = "/usr/libexec/fx-privileged"
PROGRAMS = {f"{PACKAGE}/{name}" for name in ("setuid", "setgid", "capability")}


class Users:
    """Processes of a user that began before a change: a plain one, and a service in a mount namespace."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._goes = {kind: f"/run/fx-users/{name}-{kind}" for kind in ("plain", "service")}
        host.sh("install -d -m 1777 /run/fx-users")
        for kind, go in self._goes.items():
            own = ("--property=PrivateTmp=yes",) if kind == "service" else ()
            host.sh(f"mkfifo -m 644 {go}")
            host.run(
                "systemd-run",
                "--quiet",
                "--uid=nobody",
                f"--property=StandardOutput=file:{go}.json",
                f"--unit=fx-{name}-{kind}",
                "--property=RemainAfterExit=yes",
                *own,
                *program("superseded.py", "try", go),
            )
        for go in self._goes.values():
            wait_for(host, f"test -e {go}.ready")

    def tried(self) -> dict[str, tuple[str | None, bool]]:
        """Have them try all copies; return path -> (version, whether it gained privileges)."""
        everywhere = self._host.run_program("superseded.py", "find").stdout
        result = {}
        for kind, go in self._goes.items():
            self._host.run("sh", "-c", f"cat >{go}", input=everywhere)
            wait_for(self._host, f"test -s {go}.json")
            shown: Mapping[str, tuple[str | None, bool]] = json.loads(self._host.sh(f"cat {go}.json"))
            result |= {f"{kind}:{path}": (version, gained) for path, (version, gained) in shown.items()}
        return result


def gained(tried: Mapping[str, tuple[str | None, bool]]) -> dict[str, str | None]:
    """Return the paths by which a program gained privileges -> its version."""
    return {path: version for path, (version, gains) in tried.items() if gains}


def test_superseded_programs_gain_no_privileges(own: Host):
    """Of a live update; and, after a reboot, of a live removal, until its reset shows them again."""
    own.ao("install", "-A", "-y", "fx-privileged")
    users = Users(own, "updated")
    own.suites("stable", "updates")
    own.ao("upgrade", "-A", "-y", "--packages-only")

    tried = users.tried()

    assert set(gained(tried).values()) == {"2.0"}, gained(tried)
    assert not [path for path in gained(tried) if "ostree/" in path]
    assert {f"plain:{path}" for path in PROGRAMS} <= gained(tried).keys()
    superseded = {path.partition(":")[2] for path, (version, _) in tried.items() if version == "1.0"}
    for way in ("/sysroot/ostree/", "/proc/self/fd/", "./", "/proc/[0-9]+/root/", "namespace:"):
        assert [path for path in superseded if re.match(way, path)], (way, superseded)

    own.reboot()
    users = Users(own, "removed")
    own.ao("uninstall", "-A", "-y", "fx-privileged")
    tried = users.tried()
    assert gained(tried) == {}
    assert {version for version, _ in tried.values()} >= {"2.0"}

    own.ao("apply-live", "--reset")
    for path in PROGRAMS:
        assert own.run(*NOBODY, path, "/etc/shadow").stdout


def test_no_maintainer_script_gets_out_of_its_sandbox(own: Host):
    own.ao("install", "-A", "-y", "fx-escapes")
    outcomes = json.loads(own.sh("cat /usr/share/fx-escapes/outcomes.json"))
    if "pids" not in own.sh("cat /sys/fs/cgroup/cgroup.controllers").split():  # in a container without it
        del outcomes["fork-bomb"]
    assert len(outcomes) >= 30
    assert {name: outcome for name, outcome in outcomes.items() if outcome is not None} == {}
