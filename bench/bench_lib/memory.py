"""Peak memory of each kind of process while the product works inside the machine."""

from __future__ import annotations

from bench_lib import product
from bench_lib.measure import run, run_watched

_UPGRADED = tuple(f"fx-many-{number:03}" for number in range(1, 41))


def measure() -> dict[str, dict[str, int]]:
    """Return the highest VmHWM (kB) of each kind of process, for each verb."""
    found = {}
    found["install"] = run_watched("apt-ostree", "install", "-y", "-q", *product.FORTY)[1]
    found["apply-live"] = run_watched("apt-ostree", "apply-live", "-y", "-q")[1]
    product.undo_live()
    product.drop_pending()
    product.install(_UPGRADED)
    _choose_suites("stable", "updates")
    found["upgrade"] = run_watched("apt-ostree", "upgrade", "--packages-only", "-y", "-q")[1]
    product.drop_pending()
    _choose_suites("stable")
    found["status"] = run_watched("apt-ostree", "status")[1]
    return found


def _choose_suites(*suites: str) -> None:
    run("testbed-fixtures", *suites)
    run("apt-ostree", "refresh-md", "--force", "--quiet")
