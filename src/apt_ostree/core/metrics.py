"""metrics: what monitoring wants to know of the system, as text. Reads only."""

from __future__ import annotations

from apt_ostree import __version__
from apt_ostree.core.status import status
from apt_ostree.model.metrics import System, metrics_of, text_of
from apt_ostree.model.queries import Metrics, Status
from apt_ostree.system import refreshed, statedb


def metrics(_query: Metrics) -> str:
    """Return the metrics of the running system; without root's rights, those that anybody can read."""
    found = System(__version__, status(Status()).to_json(), refreshed.when())
    if not statedb.is_readable():
        return text_of(metrics_of(found))
    with statedb.read_only() as records:
        history = records.history() if records else ()
        overlays = [state.enabled for state in records.overlays()] if records else []
    return text_of(metrics_of(System(found.version, found.status, found.lists_refreshed, history, overlays)))
