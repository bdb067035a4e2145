"""The metrics of a system, and their text for Prometheus (its exposition format, version 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apt_ostree.model.history import Entry, Outcome

#: How an operation of the history ended well.
_WELL = (Outcome.LIVE, Outcome.DONE, Outcome.FORGOTTEN, Outcome.ENDED, Outcome.ACTING)
#: How a run of automatic updates ends.
OUTCOMES = ("current", "noted", "staged", "live", "reboot", "deferred", "failed")

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, which is a gauge. samples: labels and value of each."""

    name: str
    help: str
    samples: tuple[tuple[Labels, float], ...]


@dataclass(frozen=True, slots=True)
class System:
    """What the metrics are made of.

    version: of apt-ostree.
    status: the JSON object of `status`.
    lists_refreshed: when the package lists were last downloaded, in seconds since 1970; None: never.
    history: the operations, the oldest first; None if they cannot be read.
    overlays: whether each overlay is enabled; None if they cannot be read.
    """

    version: str
    status: Mapping[str, Any]
    lists_refreshed: float | None = None
    history: Sequence[Entry] | None = None
    overlays: Sequence[bool] | None = None


def text_of(metrics: Iterable[Metric]) -> str:
    """Return the text of metrics; one without a sample is left out."""
    return "".join(f"{line}\n" for metric in metrics if metric.samples for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    name, text = f"apt_ostree_{metric.name}", metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"
    for labels, value in metric.samples:
        pairs = ",".join(f'{key}="{_escaped(one)}"' for key, one in labels.items())
        yield f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def metrics_of(system: System) -> Iterator[Metric]:
    """Yield the metrics of a system."""
    status = system.status
    yield Metric("info", "The version of apt-ostree.", (({"version": system.version}, 1),))
    yield from _of_deployments(status)
    yield from _of_live_state(status)
    yield from _of_updates(status, system.lists_refreshed)
    yield from _of_automatic_updates(status["automatic-updates"])
    if system.history is not None:
        yield from _of_history(system.history)
    if system.overlays is not None:
        counts = {"enabled": sum(system.overlays), "disabled": system.overlays.count(False)}
        samples = tuple(({"state": state}, count) for state, count in counts.items())
        yield Metric("overlays", "Overlays, by state.", samples)


def _one(name: str, text: str, value: float | None) -> Metric:
    return Metric(name, text, () if value is None else (({}, value),))


def _of_deployments(status: Mapping[str, Any]) -> Iterator[Metric]:
    entries = status["deployments"]
    booted = next((entry for entry in entries if entry["booted"]), None)
    pending = entries[0] if status["pending"] else None
    yield _one("deployments", "Deployments.", len(entries))
    yield _one("pending", "Whether the next boot starts another deployment.", status["pending"])
    text = "The deployment that is booted, and the one that is pending."
    named = (("booted", booted), ("pending", pending))
    yield Metric("deployment_info", text, tuple((_label(s, e), 1) for s, e in named if e))
    yield _one(
        "booted_timestamp_seconds",
        "When the commit of the booted deployment was made.",
        booted["timestamp"] if booted else None,
    )
    failed = sum(bool(entry["failed"]) for entry in entries)
    yield _one("deployments_failed", "Deployments whose packages have failed at a boot or live.", failed)
    uncompleted = status["uncompleted-deployment"] is not None
    yield _one("uncompleted", "Whether a shutdown did not complete a staged deployment.", uncompleted)


def _label(state: str, entry: Mapping[str, Any]) -> Labels:
    return {
        "state": state,
        "origin": entry["origin"] or "",
        "version": entry.get("version", ""),
        "checksum": entry["checksum"],
    }


def _of_live_state(status: Mapping[str, Any]) -> Iterator[Metric]:
    booted: Mapping[str, Any] = next((e for e in status["deployments"] if e["booted"]), {})
    is_live = "live-replaced" in booted
    yield _one("live", "Whether the running system shows a live change.", is_live)
    yield _one("live_interrupted", "Whether a live change was interrupted.", "live-inprogress" in booted)
    if is_live:
        live = booted["live-generation"]
        yield _one("live_generation", "The number of the live change.", live["number"])
        yield _one("live_unconfirmed", "Whether it waits to be confirmed.", live["confirm-by"] is not None)
        failed = len(booted["live-failed-units"])
        yield _one("live_failed_units", "Units that live changes started and that have failed.", failed)


def _of_updates(status: Mapping[str, Any], refreshed: float | None) -> Iterator[Metric]:
    update = status["cached-update"]
    yield _one("update_available", "Whether the last check has noted an update.", update is not None)
    diff = update.get("rpm-diff", {}) if update else {}
    kinds = ("upgraded", "downgraded", "removed", "added")
    samples = tuple(({"change": kind}, len(diff.get(kind, ()))) for kind in kinds)
    yield Metric("update_packages", "Packages that the update changes.", samples)
    text = "When the package lists were last downloaded."
    yield _one("package_lists_timestamp_seconds", text, refreshed)


def _of_automatic_updates(automatic: Mapping[str, Any] | None) -> Iterator[Metric]:
    policy = automatic["policy"] if automatic else "none"
    yield Metric("automatic_info", "The policy of automatic updates.", (({"policy": policy}, 1),))
    if automatic is None:
        return
    active = automatic["timer"] == "active"
    yield _one("automatic_timer_active", "Whether the timer of automatic updates is active.", active)
    text = "When automatic updates last ran."
    yield _one("automatic_last_run_timestamp_seconds", text, automatic["last-run"])
    outcomes = tuple(({"outcome": one}, one == automatic["outcome"]) for one in OUTCOMES)
    yield Metric("automatic_outcome", "How the last run ended.", outcomes)
    text = "Since when the system is not up to date; absent if it is."
    yield _one("automatic_waiting_since_timestamp_seconds", text, automatic["waiting-since"])
    failed = automatic["failed-attempts"]
    yield _one("automatic_failed_attempts", "How often the update that waits has failed.", failed)


def _of_history(history: Sequence[Entry]) -> Iterator[Metric]:
    counts = Counter(entry.outcome for entry in history)
    samples = tuple(({"outcome": outcome.value}, counts[outcome]) for outcome in Outcome)
    yield Metric("operations", "Operations of the history, by how they ended.", samples)
    if history:
        last = history[-1]
        yield _one("last_operation_success", "Whether the last one ended well.", last.outcome in _WELL)
        began = last.began
        yield _one("last_operation_timestamp_seconds", "When the last one began.", began)
