"""`apt-ostree status` against what importing libostree's binding alone costs."""

from __future__ import annotations

from bench_lib import product
from bench_lib.measure import interleaved, timed

_IMPORT = "import gi; gi.require_version('OSTree', '1.0'); from gi.repository import OSTree"


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of both on a plain system, and on one with packages layered and live."""
    found = {"plain": _compare(rounds)}
    product.install(product.SMALL)
    product.apply_live()
    found["layered"] = _compare(rounds)
    product.undo_live()
    product.drop_pending()
    return found


def _compare(rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"status": [], "import": []}

    def ours() -> None:
        found["status"].append(timed("apt-ostree", "status"))

    def peer() -> None:
        found["import"].append(timed("python3", "-c", _IMPORT))

    for _number in interleaved(rounds, ours, peer):
        pass
    return found
