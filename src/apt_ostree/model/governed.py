"""Which requests the policy is about. What goes back, repairs or tidies is never held up by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from apt_ostree.model.policy import Reach
from apt_ostree.model.request import Request
from apt_ostree.model.requests.deployments import FinalizeDeployment
from apt_ostree.model.requests.live import ApplyLive
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.requests.overlays import EditOverlay, OverlayRestore, Unlock
from apt_ostree.model.requests.packages import DeployRequest, Upgrade


def reach_of(request: Request) -> Reach | None:
    """Return how far a request goes, or None for one that the policy is not about."""
    match request:
        case DeployRequest(deploy=options):
            preview = options.dry_run or (isinstance(request, Upgrade) and request.check)
            waits = options.download_only or (options.lock_finalization and options.live is None)
            return Reach(
                preview, not waits, options.reboot, options.override_policy, request.verb, _live(options.live)
            )
        case ApplyLive(reset=False):
            override = request.live.override_policy
            return Reach(request.dry_run, override=override, verb=request.verb, live=_live(request.live))
        case EditOverlay() if request.remove or (request.enable is False and not request.edits):
            return None
        case EditOverlay() | OverlayRestore() | Unlock():
            return Reach(request.dry_run, override=request.live.override_policy)
        case FinalizeDeployment():
            override = request.override_policy
            return Reach(request.dry_run, reboots=True, override=override, verb=request.verb)
    return None


def _live(options: LiveOptions | None) -> Mapping[str, Any] | None:
    """Return the options of a live change by which it differs from another one."""
    return {**asdict(options), "override_policy": ""} if options else None


def preview_of(request: Request) -> Request | None:
    """Return the request to tell what would be decided about another one, from what is cached; or None.

    None is for a request that the policy is not about.
    """
    if reach_of(request) is None:
        return None
    match request:
        case DeployRequest(deploy=options):
            # A live change would have to be built, with downloads; it is judged by its packages before that.
            return replace(request, deploy=replace(options, dry_run=True, cache_only=True, judge=True))
        case ApplyLive() | EditOverlay() | OverlayRestore() | Unlock() | FinalizeDeployment():
            return replace(request, dry_run=True)
    return None
