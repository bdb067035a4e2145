"""Which requests the policy is about. What goes back, repairs or tidies is never held up by it."""

from __future__ import annotations

from dataclasses import replace

from apt_ostree.model.policy import Reach
from apt_ostree.model.request import Request
from apt_ostree.model.requests.deployments import FinalizeDeployment
from apt_ostree.model.requests.live import ApplyLive
from apt_ostree.model.requests.overlays import EditOverlay, OverlayRestore, Unlock
from apt_ostree.model.requests.packages import DeployRequest, Upgrade


def reach_of(request: Request) -> Reach | None:
    """Return how far a request goes, or None for one that the policy is not about."""
    match request:
        case DeployRequest(deploy=options):
            preview = options.dry_run or (isinstance(request, Upgrade) and request.check)
            waits = options.download_only or (options.lock_finalization and options.live is None)
            return Reach(preview, not waits, options.reboot, options.override_policy)
        case ApplyLive(reset=False):
            return Reach(request.dry_run, override=request.live.override_policy)
        case EditOverlay() if request.remove or (request.enable is False and not request.edits):
            return None
        case EditOverlay() | OverlayRestore() | Unlock():
            return Reach(request.dry_run, override=request.live.override_policy)
        case FinalizeDeployment():
            return Reach(request.dry_run, reboots=True, override=request.override_policy)
    return None


def preview_of(request: Request) -> Request | None:
    """Return the request to tell what would be decided about another one, from what is cached; or None.

    None is for a request that the policy is not about.
    """
    if reach_of(request) is None:
        return None
    match request:
        case DeployRequest(deploy=options):
            # A live change would have to be built, with downloads; it is judged by its packages before that.
            return replace(request, deploy=replace(options, dry_run=True, cache_only=True, live=None))
        case ApplyLive() | EditOverlay() | OverlayRestore() | Unlock() | FinalizeDeployment():
            return replace(request, dry_run=True)
    return None
