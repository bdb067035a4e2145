"""Installing, applying live and removing, against apt-get in a plain chroot and `ostree admin deploy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench_lib import chroot, product
from bench_lib.measure import BenchError, interleaved, say

_SETS: Mapping[str, Sequence[str]] = {"small": product.SMALL, "forty": product.FORTY}


def measure(rounds: int) -> dict[str, Any]:
    """Return for each set the number of packages, and the seconds of each side and step in every round."""
    try:
        chroot.build(list(_SETS.values()))
        found = {name: _measure_set(name, packages, rounds) for name, packages in _SETS.items()}
        product.forget_kept("bench")
        return found
    finally:
        chroot.remove()


def prepare_removal() -> None:
    """Stage what `measure_removal` removes; it has to be booted then."""
    product.install(product.SMALL)


def measure_removal(rounds: int) -> list[float]:
    """Return the seconds that removing the booted small set takes, in every round."""
    seconds = []
    for _number in range(rounds):
        seconds.append(product.uninstall(product.SMALL))
        product.drop_pending()
    return seconds


def _measure_set(name: str, packages: Sequence[str], rounds: int) -> dict[str, Any]:
    count = product.packages_of(packages)
    if count != chroot.packages_of(packages):
        raise BenchError(f"the two sides would not install the same packages for the set {name!r}")
    ref = f"bench/{name}"
    chroot.install(packages)
    chroot.commit(ref)
    found: dict[str, list[float]] = {key: [] for key in ("install", "live", "apt", "deploy", "deploy_staged")}

    def ours() -> None:
        found["install"].append(product.install(packages))
        found["live"].append(product.apply_live())
        product.undo_live()
        product.drop_pending()

    def peer() -> None:
        chroot.restore()
        found["apt"].append(chroot.install(packages))
        found["deploy"].append(chroot.deploy(ref))
        found["deploy_staged"].append(chroot.deploy(ref, "--stage"))

    product.install(packages)  # downloads
    product.drop_pending()
    for number in interleaved(rounds, ours, peer):
        say(f"{count} packages: round {number + 1} of {rounds}")
    return {"packages": count, **found}
