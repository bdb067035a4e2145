"""Writes docs/benchmarks.md from its template: what was measured against what, and how it came out."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_lib import product, report

_TEMPLATE = Path(__file__).parents[1] / "benchmarks.template.md"
_MISSING = "(not measured)"


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Write the page; what was not measured is named so."""
    words: dict[str, str] = {
        **found["machine"],
        "comparisons": report.markdown(report.main_table(report.rows(found))),
        "small": " ".join(product.SMALL),
        "forty": " ".join(product.FORTY),
        "sysext_start": _MISSING,
        "update_peer": f" {_MISSING}",
        "compose_peer": _MISSING,
        "image_peer": f" {_MISSING}",
        "image_updates": _MISSING,
        "processes": _MISSING,
        "rounds": _MISSING,
    }
    if "switch" in found:
        words["sysext_start"] = f"{statistics.median(found['switch']['refresh_start']) * 1000:.0f} ms"
    if "update" in found:
        words["update_peer"] = f" ({_medians(found['update']['peer'])})"
    if "images" in found:
        words["image_peer"] = f" ({_medians(found['images']['apt'])})"
    if "layers" in found:
        words["image_updates"] = ", ".join(step["update"] for step in found["layers"]["updates"])
    if "compose" in found:
        steps = found["compose"]["peer"].items()
        words["compose_peer"] = "(" + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in steps) + ")"
    if "memory" in found:
        words["processes"] = report.markdown(report.memory_table(found["memory"]))
    for topic, first in (("changes", "packages"), ("tree", "files added")):
        tables = report.growth_tables(found[topic], first) if topic in found else None
        for number, verb in enumerate(("install", "live")):
            words[f"{verb}_{topic}"] = report.markdown(tables[number]) if tables else _MISSING
    if "changes" in found:
        words["rounds"] = str(min(len(size["apply-live"]) for size in found["changes"].values()))
    path.write_text(_TEMPLATE.read_text().format_map(words))


def _medians(rounds: Sequence[Mapping[str, float]]) -> str:
    """Return the median of each step."""
    medians = {name: statistics.median(steps[name] for steps in rounds) for name in rounds[0]}
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in medians.items())


def describe_machine(date: str) -> dict[str, Any]:
    """Return the facts about this computer that matter for the figures."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    virtual = "hypervisor" in Path("/proc/cpuinfo").read_text()
    return {
        "date": date,
        "cores": os.cpu_count(),
        "memory": round(pages / 2**30),
        "kernel": platform.release().partition("-")[0],
        "where": "a virtual machine" if virtual else "no virtual machine",
    }
