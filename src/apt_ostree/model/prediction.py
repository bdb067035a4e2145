"""What a deployment that waits would mean for the running system, as it was when the deployment was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apt_ostree.model.history import Entry, Outcome
from apt_ostree.model.plan import Impact, LivePlan, UnitAction, is_session

#: Live changes of the history from which the time is told.
_NEWEST = 10
_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a deployment would mean.

    commit: of the deployment.
    impact: what has to be restarted until no old code runs.
    units: those that a live change restarts, reloads, starts or stops.
    sessions: units of users' sessions that would go on with old code.
    waits: what would take effect with a reboot only.
    refusals: why it cannot be live; none if it can.
    seconds: how long live changes took lately; None without one.
    """

    commit: str
    impact: Impact = Impact.NONE
    units: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object of `prediction` in `status --json`."""
        return {
            "checksum": self.commit,
            "impact": self.impact,
            "live-possible": not self.refusals,
            "units": list(self.units),
            "sessions": list(self.sessions),
            "waits-for-reboot": list(self.waits),
            "refusals": list(self.refusals),
            "seconds": self.seconds,
        }


def predict(commit: str, plan: LivePlan, history: Sequence[Entry]) -> Prediction:
    """Return what a plan of applying a commit says. history: the operations, the oldest first."""
    left = [step.unit for step in plan.units if step.action is UnitAction.DEFER]
    acted = [s.unit for s in plan.units if s.acts and s.action not in (UnitAction.DEFER, UnitAction.SKIP)]
    return Prediction(
        commit=commit,
        impact=plan.impact,
        units=tuple(acted),
        sessions=tuple(unit for unit in left if is_session(unit)),
        waits=(*plan.deferred, *(unit for unit in left if not is_session(unit))),
        refusals=plan.refusals,
        seconds=_usual(history),
    )


def _usual(history: Iterable[Entry]) -> float | None:
    """Return the usual duration of a live change in seconds; None if there was none."""
    import statistics  # takes 6 ms, and every verb reads settings

    made = (Outcome.LIVE, Outcome.FORGOTTEN, Outcome.ENDED)
    times = [sum(entry.steps.values()) for entry in history if entry.outcome in made and entry.steps]
    return round(statistics.median(times[-_NEWEST:]), 1) if times else None


def describe(prediction: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `status` says of a prediction. prediction: see Prediction.to_json."""
    if not prediction["live-possible"]:
        yield f"needs a reboot: {_some(prediction['refusals'])}"
        return
    seconds = prediction["seconds"]
    lasts = f", in about {seconds:.0f} s" if seconds else ""
    units = f"acts on {_some(prediction['units'])}" if prediction["units"] else "acts on no units"
    yield f"live: {units}{lasts}"
    if prediction["sessions"]:
        yield f"old code stays in: {_some(prediction['sessions'])}"
    if prediction["waits-for-reboot"]:
        yield f"waits for a reboot: {_some(prediction['waits-for-reboot'])}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join([*names[:_NAMES], *([f"{more} more"] if more > 0 else [])])
