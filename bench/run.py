#!/usr/bin/python3
"""Measures what the documentation promises: prints a table of ratios, and writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_CHECKOUT / "bench"), str(_CHECKOUT / "tools")]
sys.dont_write_bytecode = True

from bench_lib import compose, disk, document, images, imagesides, machine, pull, registry, report  # noqa: E402
from bench_lib.measure import BenchError, interleaved, say  # noqa: E402
from testbed_lib.common import TestbedError  # noqa: E402
from testbed_lib.machine import Machine  # noqa: E402

_PAGE = _CHECKOUT / "docs/benchmarks.md"
_TOPICS = (
    "compose",
    "disk",
    "installs",
    "update",
    "switch",
    "startup",
    "service",
    "memory",
    "changes",
    "tree",
    "overlays",
    "pull",
    "images",
    "layers",
)


@dataclass(frozen=True, slots=True)
class Amount:
    """How often each thing is measured."""

    installs: int = 7
    updates: int = 7
    startup: int = 20
    blocks: int = 5
    switches: int = 60
    refreshes: int = 12
    changes: tuple[int, ...] = (1, 10, 100, 500)
    files: tuple[int, ...] = (20_000, 60_000)
    rounds: int = 9
    tree_rounds: int = 5
    overlay_boots: int = 4
    overlay_rounds: int = 3
    overlay_sizes: int = 9
    pulls: int = 5
    image_reboots: int = 3
    image_updates: int = 10
    imports: int = 5


_QUICK = Amount(
    installs=2,
    updates=3,
    startup=7,
    blocks=2,
    switches=30,
    refreshes=8,
    changes=(1, 100),
    files=(20_000,),
    rounds=5,
    tree_rounds=3,
    overlay_boots=2,
    overlay_rounds=2,
    overlay_sizes=5,
    pulls=2,
    image_reboots=2,
    image_updates=3,
    imports=2,
)


def main() -> int:
    """Measure, print, write; return the exit code: 1 when a target is missed."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` runs
    try:
        found = json.loads(arguments.load.read_text()) if arguments.load else {}
        if arguments.only or not arguments.load:
            _measure(arguments, found)
    except (BenchError, TestbedError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 125
    complete = not (arguments.quick or arguments.only or arguments.load)
    if output := arguments.output or (_PAGE if complete else None):
        document.write(output, found)
    _print(found)
    return 1 if any("missed" in row.verdict for row in report.rows(found)) else 0


def _measure(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """Measure topics and add them to the figures, which are kept after each: a failure loses no other."""
    if os.geteuid() != 0:
        raise BenchError("needs root: it mounts and boots")
    os.umask(0o022)
    amount = _QUICK if arguments.quick else Amount()
    topics = set(arguments.only or _TOPICS)
    if arguments.quick and not arguments.only:
        topics -= {"compose", "disk", "pull", "images", "layers"}
    found["machine"] = document.describe_machine(time.strftime("%Y-%m-%d"))
    alone: dict[str, Callable[[], Any]] = {
        "compose": compose.measure,
        "disk": disk.measure,
        "update": partial(_measure_update, arguments, amount.updates),
        "overlays": partial(_measure_overlays, arguments, amount),
        "pull": partial(_measure_pull, arguments, amount.pulls),
        "images": partial(_measure_images, arguments, amount),
        "layers": partial(images.measure_updates, amount.image_updates, amount.imports),
    }
    for topic in (name for name in alone if name in topics):
        found[topic] = alone[topic]()
        _keep(arguments, found)
    if inside := topics - alone.keys():
        with machine.booted(
            arguments.machine, stale_base=arguments.stale_base, keep=arguments.keep
        ) as booted:
            _measure_inside(booted, inside, amount, found, partial(_keep, arguments, found))
    if "installs" in topics:
        found["installs"]["removal"] = _measure_removal(arguments, amount.installs)
    if "compose" in found:
        found.setdefault("memory", {})["compose"] = found["compose"]["memory"]
    _keep(arguments, found)


def _keep(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    if arguments.save:
        arguments.save.write_text(json.dumps(found, indent=1))


def _measure_update(arguments: argparse.Namespace, rounds: int) -> dict[str, Any]:
    """Measure updates and installs in two machines, in turns: one as it is, one made a plain Debian."""
    options = {"stale_base": arguments.stale_base, "keep": arguments.keep}
    found: dict[str, list[Any]] = {"ours": [], "peer": [], "install": [], "install-peer": []}
    with (
        machine.booted(f"{arguments.machine}-update", **options) as ours,
        machine.booted(f"{arguments.machine}-plain", **options) as plain,
    ):
        machine.measure(ours, "update-prepare")
        ours.reboot()
        machine.measure(plain, "update-plain-prepare")
        for _number in interleaved(
            rounds,
            lambda: found["ours"].append(machine.measure(ours, "update")),
            lambda: found["peer"].append(machine.measure(plain, "update-plain")),
        ):
            pass
        for _number in interleaved(
            rounds,
            lambda: found["install"].append(machine.measure(ours, "update-install")),
            lambda: found["install-peer"].append(machine.measure(plain, "update-plain-install")),
        ):
            pass
    return found


def _measure_removal(arguments: argparse.Namespace, rounds: int) -> list[float]:
    """Measure removing packages, in a machine that has booted with them."""
    options = {"stale_base": arguments.stale_base, "keep": arguments.keep}
    with machine.booted(f"{arguments.machine}-removal", **options) as booted:
        machine.measure(booted, "removal-prepare")
        booted.reboot()
        seconds: list[float] = machine.measure(booted, "removal", rounds=rounds)
        return seconds


def _measure_pull(arguments: argparse.Namespace, rounds: int) -> dict[str, Any]:
    """Measure pulls of the updates of a base into a machine, from a server on the host."""
    options = {"stale_base": arguments.stale_base, "keep": arguments.keep}
    sides: dict[str, list[str]] = {"delta": [], "objects": ["--disable-static-deltas"]}
    found: dict[str, Any] = {side: [] for side in sides} | {"bytes": {}}
    with (
        pull.served(compose.COMMAND, compose.PRODUCT, compose.TREEFILE) as served,
        machine.booted(f"{arguments.machine}-pull", **options) as booted,
    ):
        machine.measure(booted, "pull-prepare", url=served.url, old=served.commits[0])

        def measure(side: str) -> None:
            before = served.sent[0]
            found[side].append(machine.measure(booted, "pull", options=sides[side]))
            found["bytes"][side] = served.sent[0] - before

        for _number in interleaved(rounds, *(partial(measure, side) for side in sides)):
            pass
        found["packages"] = len(served.packages)
        found["bytes"]["archives"] = machine.measure(booted, "pull-archives", packages=served.packages)
    return found


def _measure_images(arguments: argparse.Namespace, amount: Amount) -> dict[str, Any]:
    """Measure a security update that comes from a registry, live and by reboot, and by apt-get, in turns."""
    with images.nginx_update() as update, registry.serving() as served:
        options = {"disk": update.disk, "keep": arguments.keep}
        with (
            machine.booted(f"{arguments.machine}-live", **options) as live,
            machine.booted(f"{arguments.machine}-reboot", **options) as rebooted,
            machine.booted(f"{arguments.machine}-apt", **options) as plain,
        ):
            sides = imagesides.Sides(update, served, {"live": live, "reboot": rebooted, "apt": plain})
            return sides.measure(amount.pulls, amount.image_reboots)


def _measure_overlays(arguments: argparse.Namespace, amount: Amount) -> dict[str, Any]:
    """Measure overlays in machines of their own; both sides have boots of their own, in turns."""
    options = {"stale_base": arguments.stale_base, "keep": arguments.keep}
    found: dict[str, Any] = {"ours": [], "peer": [], "create": {}}
    with machine.booted(f"{arguments.machine}-overlay", **options) as small:
        found["disk"] = machine.measure(small, "overlays-disk", generations=20)
        small.reboot()
        found["sizes"] = machine.measure(
            small, "overlays-sizes", few=200, many=5000, rounds=amount.overlay_sizes
        )
    with machine.booted(f"{arguments.machine}-overlays", **options) as booted:
        for number in range(amount.overlay_boots + 1):
            for side in ("ours", "peer"):
                machine.measure(booted, "overlays-prepare", side=side)
                booted.reboot()
                if number == 0:
                    found["create"][side] = machine.measure(booted, "overlays-create", side=side)
                    continue
                found[side].append(
                    machine.measure(booted, "overlays", side=side, rounds=amount.overlay_rounds, refreshes=3)
                )
    return found


def _measure_inside(
    booted: Machine, topics: set[str], amount: Amount, found: dict[str, Any], keep: Callable[[], None]
) -> None:
    settings: dict[str, dict[str, Any]] = {
        "installs": {"rounds": amount.installs},
        "switch": {
            "blocks": amount.blocks,
            "switches": amount.switches,
            "refreshes": amount.refreshes,
        },
        "startup": {"rounds": amount.startup},
        "service": {"rounds": amount.startup},
        "memory": {},
        "changes": {"counts": amount.changes, "rounds": amount.rounds},
    }
    for topic, given in settings.items():
        if topic in topics:
            found[topic] = machine.measure(booted, topic, **given)
            keep()
    if "tree" in topics:
        found["tree"] = {"0": machine.measure(booted, "tree", rounds=amount.tree_rounds)}
        there = 0
        for files in amount.files:
            machine.measure(booted, "enlarge", files=files - there)
            booted.reboot()
            machine.measure(booted, "enlarged")
            found["tree"][str(files)] = machine.measure(booted, "tree", rounds=amount.tree_rounds)
            there = files


def _print(found: dict[str, Any]) -> None:
    print(report.markdown(report.main_table(report.rows(found))))
    for topic, first in (("changes", "packages"), ("tree", "files")):
        if topic in found:
            install, live = map(report.markdown, report.growth_tables(found[topic], first))
            print(f"\ninstall:\n\n{install}\n\napply-live:\n\n{live}")
    if "memory" in found:
        print("\n" + report.markdown(report.memory_table(found["memory"])))
    say("all targets met" if not any("missed" in r.verdict for r in report.rows(found)) else "targets missed")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions, no compose, no page")
    parser.add_argument(
        "--only", action="append", choices=_TOPICS, help="measure this topic; may be repeated"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the page there (default: docs/benchmarks.md, if all was measured)",
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the figures, as JSON")
    parser.add_argument(
        "--load", type=Path, metavar="FILE", help="report kept figures; with --only, measure these anew"
    )
    parser.add_argument(
        "--machine", default="bench", metavar="NAME", help="the machine of the test bed to use"
    )
    parser.add_argument("--keep", action="store_true", help="keep the machine")
    parser.add_argument("--stale-base", action="store_true", help="do not compose the machine's tree again")
    return parser


if __name__ == "__main__":
    sys.exit(main())
