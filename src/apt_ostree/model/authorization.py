"""The actions of polkit that a request needs (data/polkit/org.debian.aptostree1.policy)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from apt_ostree.errors import NotAuthorized
from apt_ostree.model.automatic_settings import Policy
from apt_ostree.model.overlay import Scope
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.request import Request
from apt_ostree.model.requests.automatic import AutomaticUpdate
from apt_ostree.model.requests.live import ApplyLive, RollbackLive
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.overlays import EditOverlay, OverlayRequest
from apt_ostree.model.requests.packages import BaseRequest, DeployRequest, Install, Override

_PREFIX = "org.debian.aptostree1."
CANCEL = f"{_PREFIX}cancel"
_PACKAGES = "install-uninstall-packages"
_LOCAL_PACKAGES = "install-local-packages"
_OWN_OVERLAYS = "overlays-own"
_APPLY_LIVE = "apply-live"
_RESTART_SERVICES = "restart-services"

#: Verb -> its action. A verb without one is for root alone, without the service.
ACTIONS: Mapping[str, str] = {
    "apply-live": _APPLY_LIVE,
    "approve": "approve",
    "automatic-update": "upgrade",
    "bootloader-rollback": "bootconfig",
    "bootloader-update": "bootconfig",
    "cleanup": "cleanup",
    "confirm": "confirm",
    "deploy": "deploy",
    "finalize-deployment": "finalize-deployment",
    "initramfs": "bootconfig",
    "initramfs-etc": "bootconfig",
    "install": _PACKAGES,
    "kargs": "bootconfig",
    "overlay-backup": "overlays",
    "overlay-check": "overlays",
    "overlay-cleanup": "overlays",
    "overlay-restore": "overlays",
    "override": "override",
    "pin": "cleanup",
    "rebase": "rebase",
    "recover": _APPLY_LIVE,
    "refresh-md": "refresh-md",
    "reset": "override",
    "rollback": "rollback",
    "rollback-live": _APPLY_LIVE,
    "run": "run",
    "uninstall": _PACKAGES,
    "unlock": "unlock",
    "unlock-discard": "unlock",
    "unlock-save": "unlock",
    "unpin": "cleanup",
    "upgrade": "upgrade",
    "usroverlay": "overlays",
}


def is_own(request: Request, user: str, owner_of: Callable[[str], str]) -> bool:
    """Return whether a request changes only an overlay of scope user that is for this user.

    owner_of: returns whom the overlay of a name is for, "" if it has another scope or is not there.
    """
    if not isinstance(request, EditOverlay) or not request.name:
        return False
    changes = request.definition
    if changes.allow or changes.scope not in (None, Scope.USER) or changes.user not in (None, user):
        return False
    if request.create:
        return (changes.scope, changes.user) == (Scope.USER, user)
    return owner_of(request.name) == user


def actions_of(request: Request, *, own: bool = False) -> tuple[str, ...]:
    """Return the actions that a user needs; raise NotAuthorized for a request that no user may make.

    own: it changes only an overlay of the user's own (`is_own`).
    """
    if not request.is_for_users:
        raise NotAuthorized(
            f"{request.title} is not possible through the service", hint="run the command with sudo"
        )
    actions = [_OWN_OVERLAYS if own else ACTIONS[request.verb]]
    if isinstance(request, DeployRequest) and request.open_files:
        actions.append(_LOCAL_PACKAGES)
    if isinstance(request, BaseRequest | Override) and (request.install or request.uninstall):
        actions.append(_PACKAGES)
    if isinstance(request, Install) and request.replace_files:
        actions.append(ACTIONS["override"])
    if isinstance(request, ApplyLive) and (request.selection or request.target):
        actions.append(_PACKAGES)  # not what is deployed: these may come from the archives
    if isinstance(request, DeployRequest) and request.deploy.live:
        actions.append(_APPLY_LIVE)
    if isinstance(request, AutomaticUpdate) and request.policy is Policy.LIVE:
        actions += [_APPLY_LIVE, _RESTART_SERVICES]  # the settings' own policy is the administrator's
    if _restarts(request) is not RestartPolicy.NONE:
        actions.append(_RESTART_SERVICES)
    return tuple(_PREFIX + name for name in actions)


def _restarts(request: Request) -> RestartPolicy:
    match request:
        case DeployRequest(deploy=DeployOptions(live=LiveOptions() as live)):
            return live.restart_services
        case ApplyLive(live=live) | OverlayRequest(live=live):
            return live.restart_services
        case RollbackLive(restart_services=policy):
            return policy
    return RestartPolicy.NONE
