"""override and reset: removes and replaces packages of the base, and gives the base's own back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from apt_ostree.core.deploy import deploy
from apt_ostree.core.packages import changed, local_packages, names_in_base
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import UsageError
from apt_ostree.model.origin import (
    LocalPackage,
    add_requests,
    overridden_names,
    request_name,
    with_overrides,
    without_layers,
    without_overrides,
    without_requests,
)
from apt_ostree.model.requests.packages import Override, Reset
from apt_ostree.model.result import Result


def override(tx: Transaction, request: Override) -> Result:
    """Build the next deployment with other packages of the base, or without them.

    Returns the result of `deploy`. Raises UsageError for a package that the base does not have or that has no
    override, and what `deploy` raises.
    """
    with tx.changing("override packages of the base"):
        base, origin = names_in_base(tx), tx.merge_deployment.origin
        reset = tuple(overridden_names(origin, base)) if request.reset_all else request.reset
        origin = without_overrides(origin, reset, base)
        local, layered = (local_packages(tx, files) for files in (request.files, request.install_files))
        _refuse_others(request.replace, local, base)
        origin = with_overrides(origin, request.remove, base)
        origin = add_requests(origin, request.replace, local, overrides=True)
        origin = add_requests(origin, request.install, layered, recommends=request.recommends)
        origin = without_requests(origin, request.uninstall)
        return deploy(tx, changed(tx, origin), request.deploy)


def reset(tx: Transaction, request: Reset) -> Result:
    """Build the next deployment without what was layered and overridden, or deploy the base itself.

    Returns the result of `deploy`, and raises what `deploy` raises.
    """
    with tx.changing("reset the deployment"):
        local = local_packages(tx, request.files)
        base, origin = names_in_base(tx), tx.merge_deployment.origin
        origin = without_requests(origin, request.uninstall)
        overridden = overridden_names(origin, base)
        everything = not (request.layers or request.overrides or request.initramfs)
        if request.layers or everything:
            origin = without_layers(origin, base)
        if request.overrides or everything:
            origin = without_overrides(origin, tuple(overridden), base)
        if request.initramfs or everything:
            origin = replace(origin, initramfs=None, initramfs_etc=())
        if everything:
            origin = replace(origin, commands=(), upgraded=False)
        origin = add_requests(origin, request.install, local, recommends=request.recommends)
        return deploy(tx, changed(tx, origin), request.deploy)


def _refuse_others(requests: Sequence[str], local: Sequence[LocalPackage], base: frozenset[str]) -> None:
    """Raise UsageError for replacements of packages that the base does not have, or without a version."""
    names = [*map(request_name, requests), *(package.name for package in local)]
    if others := [name for name in names if name not in base]:
        raise UsageError(
            f"{', '.join(others)} is no package of the base",
            hint="'apt-ostree install' adds packages to it",
        )
    if plain := [request for request in requests if "=" not in request]:
        raise UsageError(
            f"{', '.join(plain)}: a replacement needs a version",
            hint="give NAME=VERSION or a .deb file; 'apt-ostree upgrade --packages-only' takes the newest",
        )
