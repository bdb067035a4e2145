"""The sweep: fail, die or lose power at every failpoint of a live change; then old or new, never between.

`make check` takes a sample with a fixed seed. `make torture` takes all of them; APT_OSTREE_TORTURE_SEED and
APT_OSTREE_TORTURE_COUNT choose others, or fewer.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system import livehost
from tests.system.livehost import Host, Look, same

SOURCE = Path(__file__).parents[2] / "src/apt_ostree"
PACKAGES = ("fx-service", "fx-user", "fx-conf")
TORTURE = bool(os.environ.get("APT_OSTREE_TORTURE"))
SEED = int(os.environ.get("APT_OSTREE_TORTURE_SEED", "20261123"))
COUNT = int(os.environ.get("APT_OSTREE_TORTURE_COUNT", "0" if TORTURE else "2"))  # of each verb; 0: all

#: A worker that runs its request and prints the failpoints it passes.
_TRACE = """
import sys
from apt_ostree.system import failpoints
failpoints.failpoint = lambda name: print(name, file=sys.stderr, flush=True)
from apt_ostree import worker
sys.exit(worker.main())
"""


@dataclass(frozen=True)
class Verb:
    """A command to break: how to get ready for it, its words, and its request to a worker."""

    ready: str
    words: tuple[str, ...]
    request: dict[str, Any]


INSTALL = ("install", "-A", "-y", *PACKAGES)
VERBS = {
    "apply-live": Verb("pending", ("apply-live",), {"verb": "apply-live", "arguments": {}}),
    "reset": Verb("live", ("apply-live", "--reset"), {"verb": "apply-live", "arguments": {"reset": True}}),
    "install": Verb("nothing", INSTALL, {"verb": "install", "arguments": {
        "packages": PACKAGES, "apply_live": True}}),
    "uninstall": Verb("live", ("uninstall", "-A", "-y", "fx-service"), {"verb": "uninstall", "arguments": {
        "packages": ["fx-service"], "apply_live": True, "allow_replacement": True}}),
}  # fmt: skip


def failpoints() -> set[str]:
    """Return the names of all failpoints in the source."""
    return {
        node.args[0].value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "failpoint"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }


class Sweep:
    """The machine of the sweep, and what it shows before and after each verb that nothing disturbs."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._stack = contextlib.ExitStack()

    def begin(self) -> None:
        """Take a new machine, and learn what is right there."""
        self._stack.close()
        self.host = self._stack.enter_context(livehost.booted(self._disk))
        self.known: dict[str, tuple[Look, Look, list[str]]] = {}
        for name in VERBS:
            self.learn(name)

    def end(self) -> None:
        try:
            self.host.check_clean()
            self.host.run("ostree", "fsck", "--quiet")
        finally:
            self._stack.close()

    def ready(self, state: str) -> None:
        """Bring the machine into a state: nothing, pending or live."""
        host = self.host
        host.ao("recover")
        host.ao("apply-live", "--reset")
        if state == "nothing":
            host.undeploy()
            return
        if not host.succeeds("grep -aq fx-service /run/ostree/staged-deployment"):
            host.undeploy()
            host.ao("install", *PACKAGES)
        if state == "live":
            host.ao("apply-live", "--allow-replacement")

    def learn(self, name: str) -> tuple[Look, Look, list[str]]:
        """Run a verb undisturbed once; return what is shown before and after, and the failpoints passed."""
        if name not in self.known:
            verb = VERBS[name]
            self.ready(verb.ready)
            before = self.host.look()
            done = self.host.machine.exec(
                "/usr/bin/python3", "-c", _TRACE, input=json.dumps(verb.request).encode() + b"\n", timeout=120
            )
            assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
            passed = [line for line in done.stderr.decode().splitlines() if line in failpoints()]
            self.known[name] = (before, self.host.look(), passed)
        return self.known[name]

    def settle(self, dice: random.Random) -> None:
        """Recover; in half of the cases recovery is killed once, too."""
        if dice.random() < 0.5:
            points = sorted({p for p in self.known["reset"][2] if p.startswith(("undo", "withdraw", "etc"))})
            self.host.run(
                "apt-ostree", "recover", check=False,
                env={"APT_OSTREE_FAILPOINT": f"{dice.choice(points)}=kill"},
            )  # fmt: skip
        self.host.ao("recover")


@pytest.fixture(scope="module")
def sweep() -> Iterator[Sweep]:
    """A machine for the whole sweep; each verb has been run there undisturbed, to know what is right."""
    with livehost.prepared_disk() as disk:
        found = Sweep(disk)
        found.begin()
        yield found
        found.end()


def _cases(name: str, passed: list[str]) -> list[tuple[str, str]]:
    """Return (failpoint, action) pairs of one verb, with the pass at which it fires."""
    dice = random.Random(f"{SEED} {name}")
    actions = ["error", "kill"] + (["cut"] if name in ("apply-live", "reset") else [])
    every = [(point, action) for point in sorted(set(passed)) for action in actions]
    chosen = dice.sample(every, min(COUNT, len(every))) if COUNT else every
    return [(point, f"{action}:{dice.randint(1, passed.count(point))}") for point, action in chosen]


def _shown(look: Look) -> dict[str, Any]:
    """What makes a state: all but numbers of generations and commits, which are new every time."""
    records = [row[1] for row in look.records]
    mounts = [[*row[:3], row[3].partition(":")[0]] for row in look.mounts]
    refs = sorted(ref.split("/", 3)[3] for ref in look.live_refs)
    return look.system() | {"records": records, "mounts": mounts, "live_refs": refs}


def _is_one_of(now: Look, before: Look, after: Look) -> str:
    """Return which state is shown; fail with the difference to the nearer one when it is neither."""
    if _shown(now) == _shown(after):
        return "new"
    nearer = after if now.usr == after.usr != before.usr else before
    same(_shown(nearer), _shown(now))
    return "old"


def _break(sweep: Sweep, name: str, point: str, action: str, dice: random.Random) -> None:
    host, verb = sweep.host, VERBS[name]
    before, after, _passed = sweep.learn(name)
    sweep.ready(verb.ready)
    kind = action.partition(":")[0]
    if kind == "cut":
        base = sweep.learn("install")[0]
        _cut_power(host, verb.words, f"{point}=stop:{action.partition(':')[2]}")
        same(_shown(base), _shown(host.look()))
        assert host.look().records == [] and "/var/lib/apt-ostree/live" not in host.look().state
        return
    done = host.run("apt-ostree", *verb.words, check=False, env={"APT_OSTREE_FAILPOINT": f"{point}={action}"})
    if kind == "error":
        # Undone, or carried through, by the command itself: recovery finds nothing to do.
        state = _is_one_of(host.look(), before, after)
        assert (done.returncode, state) in {(0, "new"), (1, "old")}, done.stderr
    else:
        assert done.returncode == 1, f"not killed: {done.stderr}"
    sweep.settle(dice)
    _is_one_of(host.look(), before, after)
    # The next command works: from the pending deployment, if the broken one had come so far.
    pending = " (staged)" in host.look().deployments[0]
    if verb.ready != "live":
        host.ao(*(("apply-live",) if pending else INSTALL))
        same(_shown(sweep.learn("apply-live")[1] if pending else after), _shown(host.look()))
    host.ao("apply-live", "--reset")
    same(_shown(sweep.learn("install")[0]), _shown(host.look()))


def _cut_power(host: Host, words: tuple[str, ...], failpoint: str) -> None:
    host.run("systemd-run", "--unit=cut", f"--setenv=APT_OSTREE_FAILPOINT={failpoint}", "apt-ostree", *words)
    livehost.wait_for_stopped_worker(host, "cut")
    host.power_cut()


@pytest.mark.parametrize("cut", [False, True], ids=["kill", "power-cut"])
def test_interrupted_at_any_moment(sweep: Sweep, cut: bool):
    """The same at a time drawn by lot: between failpoints, too."""
    host, dice = sweep.host, random.Random(f"{SEED} {cut}")
    base, live = sweep.known["apply-live"][:2]
    for _round in range(COUNT or 100):
        words, old, new = dice.choice([("apply-live", base, live), ("apply-live --reset", live, base)])
        sweep.ready("live" if old is live else "pending")
        delay = dice.uniform(0.1, 1.5)
        case = f"apt-ostree {words}, {'power cut' if cut else 'killed'} after {delay:.3f} s"
        if cut:
            host.sh(f"systemd-run apt-ostree {words}; sleep {delay}")
            host.power_cut()
            same(_shown(base), _shown(host.look()))
        else:
            host.sh(f"apt-ostree {words} & sleep {delay}; pkill -KILL --parent $! || true; wait $! || true")
            sweep.settle(dice)
            _is_one_of(host.look(), old, new)
        print(f"{case}: ok", flush=True)


def test_failpoints_are_found():
    assert {"journal.after", "act.switched", "undo.etc", "switch.between", "shutdown.etc"} <= failpoints()


@pytest.mark.parametrize("name", list(VERBS))
def test_sweep(sweep: Sweep, name: str):
    _before, _after, passed = sweep.learn(name)
    assert len(set(passed)) > 5
    failures = []
    for point, action in _cases(name, passed):
        case = f"{name} {point}={action}"
        try:
            _break(sweep, name, point, action, random.Random(f"{SEED} {case}"))
        except AssertionError as error:
            failures.append(f"{case}: {error}")
            print(f"{case}: FAILED: {error}", flush=True)
            if len(failures) > 4:
                break
            sweep.begin()  # what is wrong with this machine must not be blamed on the next case
        else:
            print(f"{case}: ok", flush=True)
    assert not failures, "\n\n".join(failures)
    sweep.host.check_clean()
