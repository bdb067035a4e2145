"""What the fault tests share: a machine, the verbs to break, and what it shows before and after each."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system import livehost
from tests.system.livehost import WRITABLE_SYSROOT, Host, Look, same

SOURCE = Path(__file__).parents[2] / "src/apt_ostree"
PACKAGES = ("fx-service", "fx-user", "fx-conf")
TORTURE = bool(os.environ.get("APT_OSTREE_TORTURE"))
SEED = int(os.environ.get("APT_OSTREE_TORTURE_SEED", "20261123"))
COUNT = int(os.environ.get("APT_OSTREE_TORTURE_COUNT", "0" if TORTURE else "2"))  # of each verb; 0: all

#: The sweep itself changes what is offered.
_SOURCES = "/etc/apt/sources.list.d/testbed.sources"
#: Where an undo can be killed.
UNDO = ("undo.decided", "undo.marked", "undo.stopped", "undo.switched", "undo.etc", "undo.kernel",
        "undo.restarted", "undo.triggered", "undo.unpinned", "withdraw.before", "withdraw.after",
        "etc.before-prepare", "etc.before-write", "etc.after-write")  # fmt: skip

#: A state that is compared as a whole.
Shown = Mapping[str, Any]


@dataclass(frozen=True)
class Verb:
    """A command to break: how to get ready for it, its words, how to break it."""

    ready: str
    words: tuple[str, ...]
    actions: tuple[str, ...] = ("error", "kill")


INSTALL = ("install", "-A", "-y", *PACKAGES)
REPLACE = ("apply-live", "--allow-replacement", "--restart-services")
VERBS = {
    "apply-live": Verb("pending", ("apply-live",), ("error", "kill", "cut")),
    "reset": Verb("live", ("apply-live", "--reset"), ("error", "kill", "cut")),
    "install": Verb("nothing", INSTALL),
    "uninstall": Verb("live", ("uninstall", "-A", "-y", "fx-service")),
    "run": Verb("staged-anew", ("run", "-A", "-y", "sh", "-c", "echo x | tee /etc/run >/usr/share/run")),
    # The service runs 1.0 before, or after, and 2.0 at the other end: it is restarted.
    "upgrade": Verb("outdated", ("upgrade", "-A", "-y", "--packages-only", "--restart-services")),
    "rollback": Verb("upgraded", ("rollback", "--live")),
    "part": Verb("offered", ("apply-live", "--packages=fx-service", "--restart-services")),
    "confirm-within": Verb("shown", ("apply-live", "--target=test/2.0", *REPLACE[1:], "--confirm-within=1h")),
    "overlay-add": Verb("overlays", ("usroverlay", "--name=one", "--add=/etc/fx-overlay/conf",
        "--from=/usr/lib/os-release", "--add=/usr/share/fx-overlay", "--from=/usr/lib/os-release",
        "--remove-file=/usr/bin/wc")),
    "overlay-disable": Verb("overlays", ("usroverlay", "--disable=one")),
    "overlay-reorder": Verb("overlays", ("usroverlay", "--name=two", "--set-priority=90")),
    # Of each path of /etc, several generations are undone.
    "overlay-rollback": Verb("given-back", ("rollback", "--live", "0")),
    # It has nothing to undo: an error after the record says that the change is kept.
    "confirm": Verb("unconfirmed", ("confirm",), ("kill",)),
}  # fmt: skip


@functools.cache
def failpoints() -> frozenset[str]:
    """Return the names of all failpoints in the source."""
    return frozenset(
        node.args[0].value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "failpoint"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    )


class Sweep:
    """The machine of the sweep, and what it shows before and after each verb that nothing disturbs."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._stack = contextlib.ExitStack()
        self.host: Host
        self.base: Shown

    def begin(self) -> None:
        """Take a new machine, and learn how it looks with nothing live."""
        self._stack.close()
        self.host = self._stack.enter_context(livehost.booted(self._disk))
        self._known: dict[str, tuple[Shown, Shown, list[str]]] = {}
        self._pinned: set[str] = set()
        self._suites: tuple[str, ...] = ()
        directory = "/etc/apt-ostree/apt-ostree.conf.d"
        self.host.sh(f"mkdir -p {directory}; printf '[Live]\nSettleSeconds=0.2\n' >{directory}/quick.conf")
        self.base = self.learn("install")[0]

    def end(self) -> None:
        try:
            self.host.check_clean("whole")
        finally:
            self._stack.close()

    # -- the states to start from

    def ready(self, state: str) -> None:
        """Bring the machine into the state that a verb starts from."""
        host = self.host
        host.ao("recover")
        self._without_overlays()
        host.ao("apply-live", "--reset")
        # What a run prepared before it was killed stays until the next boot, and would spare this one a step.
        host.run(*WRITABLE_SYSROOT, "rm", "-rf", "/sysroot/ostree/apt-ostree/layers")
        match state:
            case "overlays" | "given-back":
                self._offer("stable")
                host.undeploy()
                for name, source in (("one", "/etc/debian_version"), ("two", "/etc/shells")):
                    paths = (f"--add={path}" for path in ("/etc/issue", "/usr/share/fx-both"))
                    sources = (f"--from={source}", f"--from={source}")
                    host.ao("usroverlay", "--create", f"--name={name}", *paths, *sources)
                if state == "given-back":
                    host.ao("usroverlay", "--name=two", "--remove-file=/etc/inputrc")
                    host.ao("usroverlay", "--disable=one")
                    host.ao("usroverlay", "--disable=two")
            case "nothing":
                self._offer("stable")
                host.undeploy()
            case "pending":
                self._stage("1.0")
            case "live":
                self._stage("1.0")
                host.ao("apply-live", "--allow-replacement")
            case "staged-anew":  # without what a command did before
                host.undeploy()
                self._stage("1.0")
                host.ao("apply-live", "--allow-replacement")
            case "outdated":
                self._stage("1.0")
                host.ao("apply-live")
                self._offer("stable", "updates")
            case "offered":
                self._show("1.0")
                self._stage("2.0")
            case "shown":
                self._show("1.0", "2.0", stop=1)
            case "upgraded":
                self._show("1.0", "2.0")
            case "unconfirmed":
                self._show("1.0", "2.0", stop=1)
                host.ao(*VERBS["confirm-within"].words)

    def _without_overlays(self) -> None:
        for ref in self.host.sh("ostree refs --list apt-ostree/overlay").split():
            self.host.ao("usroverlay", "--remove", f"--name={ref.removeprefix('apt-ostree/overlay/')}")

    def pending(self) -> str:
        """Return the version of fx-service in the pending deployment, or ""."""
        head = self.host.sh("ostree admin status").split()
        if head[0] == "*":
            return ""
        file = f"{head[1].partition('.')[0]} /usr/share/fx-service/version"
        return self.host.sh(f"ostree cat {file} 2>/dev/null || true").strip()

    def _offer(self, *suites: str) -> None:
        if self._suites != suites:
            self.host.suites(*suites)
            self._suites = suites

    def _stage(self, version: str) -> None:
        """Have a pending deployment with the packages in this version, and a ref on it."""
        self._offer(*("stable",) if version == "1.0" else ("stable", "updates"))
        if self.pending() != version:
            self.host.undeploy()
            self.host.ao("install", *PACKAGES)
        if version not in self._pinned:
            self.host.create_ref(f"test/{version}", self.host.commit_of_pending())
            self._pinned.add(version)

    def _show(self, *versions: str, stop: int | None = None) -> None:
        """Make the packages live in these versions, one after the other; only prepare those after `stop`."""
        for version in versions:
            if version not in self._pinned:
                self._stage(version)
        for version in versions[:stop]:
            self.host.ao(*REPLACE, f"--target=test/{version}")

    # -- what is right

    def learn(self, name: str) -> tuple[Shown, Shown, list[str]]:
        """Run a verb undisturbed once; return what is shown before and after, and the failpoints passed."""
        if name not in self._known:
            verb = VERBS[name]
            self.ready(verb.ready)
            before = self.shown()
            done = self.host.run_program("trace_failpoints.py", *verb.words)
            passed = [line for line in done.stderr.splitlines() if line in failpoints()]
            self._known[name] = (before, self.shown(), passed)
        return self._known[name]

    def shown(self) -> Shown:
        """What makes a state: all but numbers of generations and commits, which are new every time."""
        serves = json.loads(self.host.run_program("serves.py").stdout)
        return _comparable(self.host.look()) | serves

    def state(self, before: Shown, after: Shown) -> str:
        """Return which state is shown; fail with the difference to the nearer one when it is neither."""
        now = self.shown()
        if now == after:
            return "new"
        same(after if now["usr"] == after["usr"] != before["usr"] else before, now)
        return "old"

    def settle(self, dice: random.Random) -> None:
        """Recover; in half of the cases recovery is killed once, too."""
        if dice.random() < 0.5:
            self.host.run(
                "apt-ostree", "recover", check=False,
                env={"APT_OSTREE_FAILPOINT": f"{dice.choice(UNDO)}=kill"},
            )  # fmt: skip
        self.host.ao("recover")

    def continues(self, name: str, state: str) -> None:
        """Check that the next command works: from the pending deployment, if a broken one had come so far."""
        verb = VERBS[name]
        if verb.ready in ("nothing", "pending"):
            pending = bool(self.pending())
            after = self.learn("apply-live" if pending else "install")[1]
            self.host.ao(*(("apply-live",) if pending else INSTALL))
            same(after, self.shown())
        elif verb.ready not in ("live", "staged-anew") and state == "old":
            staged = name == "upgrade" and self.pending() == "2.0"
            self.host.ao(*(REPLACE if staged else verb.words))
            same(self.learn(name)[1], self.shown())
        self._without_overlays()
        self.host.ao("apply-live", "--reset")
        same(self.base, self.shown())


def _comparable(look: Look) -> dict[str, Any]:
    records = [row[1] for row in look.records]
    mounts = [[*row[:3], row[3].partition(":")[0]] for row in look.mounts]
    # The names of parts are commits, which are others in each run.
    refs = sorted("part" if "/parts/" in ref else ref.split("/", 3)[3] for ref in look.live_refs)
    etc = {path: row for path, row in look.etc.items() if path != _SOURCES}
    return look.system() | {"etc": etc, "records": records, "mounts": mounts, "live_refs": refs}
