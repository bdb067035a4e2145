"""The sweep: fail, die or lose power at every failpoint of a live change, and at every system call of one.

Then old or new, never between, and the services run what is shown. `make check` and `make extended` take
samples with a fixed seed. `make torture` takes all of them; APT_OSTREE_TORTURE_SEED and
APT_OSTREE_TORTURE_COUNT choose others, or fewer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import livehost, syscalls
from tests.system.livehost import Host, same
from tests.system.sweep import COUNT, SEED, TORTURE, UNDO, VERBS, Shown, Sweep, failpoints

#: One case of these is enough but for `make torture`: each costs seconds to get ready for.
SLOW = {"upgrade"}
#: The verbs of which `make check` takes a sample.
OFTEN = {"install", "apply-live", "overlay-add"}


@pytest.fixture(scope="module")
def sweep(disk: Path) -> Iterator[Sweep]:
    """A machine for the whole sweep; each verb is run there undisturbed first, to know what is right."""
    found = Sweep(disk)
    found.begin()
    yield found
    found.end()


def _run_cases(sweep: Sweep, cases: list[tuple[str, Callable[[random.Random], None]]]) -> None:
    """Run cases by their names and report all that fail, unless they are many."""
    failures = []
    for case, run in cases:
        try:
            run(random.Random(f"{SEED} {case}"))
        except AssertionError as error:
            failures.append(f"{case}: {error}")
            print(f"{case}: FAILED: {error}", flush=True)
            if len(failures) > (20 if TORTURE else 4):
                break
            sweep.begin()  # what is wrong with this machine must not be blamed on the next case
        else:
            print(f"{case}: ok", flush=True)
    assert not failures, "\n\n".join(failures)
    sweep.host.check_clean()


# --- failpoints


def test_failpoints_are_found():
    assert {
        "journal.after",
        "act.switched",
        "undo.etc",
        "switch.between",
        "shutdown.etc",
        *UNDO,
    } <= failpoints()


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.extended) for name in VERBS]
)
def test_sweep(sweep: Sweep, name: str):
    passed = sweep.learn(name)[2]
    assert len(set(passed)) > (0 if name == "confirm" else 5)

    def case(point: str, action: str) -> tuple[str, Callable[[random.Random], None]]:
        return f"{name} {point}={action}", lambda dice: _break(sweep, name, point, action, dice)

    _run_cases(sweep, [case(point, action) for point, action in _cases(name, passed)])


def _cases(name: str, passed: list[str]) -> list[tuple[str, str]]:
    """Return (failpoint, action) pairs of one verb, with the pass at which it fires."""
    dice = random.Random(f"{SEED} {name}")
    every = [(point, action) for point in sorted(set(passed)) for action in VERBS[name].actions]
    count = COUNT if TORTURE or name not in SLOW else 1
    chosen = dice.sample(every, min(count, len(every))) if count else every
    return [(point, f"{action}:{dice.randint(1, passed.count(point))}") for point, action in chosen]


def _break(sweep: Sweep, name: str, point: str, action: str, dice: random.Random) -> None:
    host, verb = sweep.host, VERBS[name]
    before, after, _passed = sweep.learn(name)
    sweep.ready(verb.ready)
    kind = action.partition(":")[0]
    if kind == "cut":
        _cut_power(host, verb.words, f"{point}=stop:{action.partition(':')[2]}")
        same(sweep.base, sweep.shown())
        assert "/var/lib/apt-ostree/live" not in host.look().state
        return
    done = host.run("apt-ostree", *verb.words, check=False, env={"APT_OSTREE_FAILPOINT": f"{point}={action}"})
    if kind == "error":
        # Undone, or carried through, by the command itself: recovery finds nothing to do.
        state = sweep.state(before, after)
        assert (done.returncode, state) in {(0, "new"), (1, "old")}, done.stderr
    else:
        assert done.returncode == 1, f"not killed: {done.stderr}"
    sweep.settle(dice)
    sweep.continues(name, sweep.state(before, after))


def _cut_power(host: Host, words: tuple[str, ...], failpoint: str) -> None:
    host.run("systemd-run", "--unit=cut", f"--setenv=APT_OSTREE_FAILPOINT={failpoint}", "apt-ostree", *words)
    livehost.wait_for_stopped_worker(host, "cut")
    host.power_cut()


@pytest.mark.parametrize("cut", [False, True], ids=["kill", "power-cut"])
def test_interrupted_at_any_moment(sweep: Sweep, cut: bool):
    """The same at a time drawn by lot: between failpoints, too."""
    host, dice = sweep.host, random.Random(f"{SEED} {cut}")
    base, live = sweep.learn("apply-live")[:2]
    for _round in range(COUNT or 100):
        words, old, new = dice.choice([("apply-live", base, live), ("apply-live --reset", live, base)])
        sweep.ready("live" if old is live else "pending")
        delay = dice.uniform(0.1, 1.5)
        case = f"apt-ostree {words}, {'power cut' if cut else 'killed'} after {delay:.3f} s"
        if cut:
            host.sh(f"systemd-run apt-ostree {words}; sleep {delay}")
            host.power_cut()
            same(base, sweep.shown())
        else:
            host.sh(f"apt-ostree {words} & sleep {delay}; {livehost.KILL_WORKER} || true; wait $! || true")
            sweep.settle(dice)
            sweep.state(old, new)
        print(f"{case}: ok", flush=True)


# --- system calls


@pytest.mark.extended
def test_failing_system_calls(sweep: Sweep):
    """The kernel answers a call of apply-live, or of what it starts, with an error."""
    before, after, _passed = sweep.learn("apply-live")
    sweep.ready("pending")
    passed = syscalls.record(sweep.host, VERBS["apply-live"].words)
    dice = random.Random(f"{SEED} system calls")
    every = syscalls.faults(passed, dice)
    chosen = dice.sample(every, 2 * COUNT) if COUNT else every

    def case(fault: syscalls.Fault) -> tuple[str, Callable[[random.Random], None]]:
        return str(fault), lambda dice: _break_call(sweep, fault, before, after, dice)

    _run_cases(sweep, [case(fault) for fault in chosen])


def _break_call(
    sweep: Sweep, fault: syscalls.Fault, before: Shown, after: Shown, dice: random.Random
) -> None:
    sweep.ready("pending")
    done, injected = syscalls.run(sweep.host, VERBS["apply-live"].words, fault)
    said = done.stdout + done.stderr
    careless = fault.call == "fchownat" and done.returncode == 0
    if careless:  # systemd-sysusers does not mind if a backup of its own does not get its owner
        etc = sweep.shown()["etc"]
        after = {
            **after,
            "etc": after["etc"] | {path: etc[path] for path in ("/etc/shadow-", "/etc/gshadow-")},
        }
    if done.returncode == 5:
        assert "apt-ostree recover" in said, said
        sweep.settle(dice)
        state = sweep.state(before, after)
    else:
        state = sweep.state(before, after)
        assert (done.returncode, state) in {(0, "new"), (1, "old")}, said
    if done.returncode:
        assert injected, said
        # Not every program that is called says why it failed: systemd-sysusers keeps that for debugging.
        told = (*fault.texts, "systemd-sysusers ended with")
        assert any(text in said for text in told), f"not {told}: {said}"
    sweep.settle(dice)
    assert sweep.state(before, after) == state
    if dice.random() < 0.2 and not careless:
        sweep.continues("apply-live", state)
