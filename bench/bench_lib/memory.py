"""Peak memory of each kind of process while the product works inside the machine."""

from __future__ import annotations

from bench_lib import product
from bench_lib.measure import BenchError, run, run_watched

#: The service starts the worker of a verb in a unit.
_WORKERS = "apt-ostree-transaction-*.service"
_UPGRADED = tuple(f"fx-many-{number:03}" for number in range(1, 41))


def measure() -> dict[str, dict[str, int]]:
    """Return the highest VmHWM (kB) of each kind of process, for each verb."""
    found = {}
    found["install"] = _of_verb("install", *product.FORTY)
    found["apply-live"] = _of_verb("apply-live")
    product.undo_live()
    product.drop_pending()
    product.install(_UPGRADED)
    _choose_suites("stable", "updates")
    found["upgrade"] = _of_verb("upgrade", "--packages-only")
    product.drop_pending()
    _choose_suites("stable")
    found["status"] = run_watched("apt-ostree", "status")[1]
    return found


def _of_verb(verb: str, *words: str) -> dict[str, int]:
    peaks = run_watched("apt-ostree", verb, "-y", "-q", *words, units=_WORKERS)[1]
    if "worker" not in peaks:
        raise BenchError(f"no worker of {verb} was seen")
    return peaks


def _choose_suites(*suites: str) -> None:
    run("testbed-fixtures", *suites)
    run("apt-ostree", "refresh-md", "--force", "--quiet")
