"""The requests: one frozen record for each verb (those of queries are in model.queries).

The command line makes them, and they are passed to the worker as JSON, which is validated (`read_request`).
The caller and the title in the history are no fields, so that they cannot be forged: the worker determines
them. Each module is imported when one of its verbs is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from apt_ostree.model.request import Request, find

#: Verb -> "module:class" of its request.
VERBS: Mapping[str, str] = {
    "apply-live": "live:ApplyLive",
    "approve": "policy:Approve",
    "automatic-update": "automatic:AutomaticUpdate",
    "bootloader-rollback": "deployments:BootloaderRollback",
    "bootloader-update": "deployments:BootloaderUpdate",
    "cleanup": "deployments:Cleanup",
    "compose-commit": "compose:ComposeCommit",
    "compose-disk": "images:ComposeDisk",
    "compose-extensions": "compose:ComposeExtensions",
    "compose-image": "images:ComposeImage",
    "compose-install": "compose:ComposeInstall",
    "compose-postprocess": "compose:ComposePostprocess",
    "compose-publish": "compose:ComposePublish",
    "compose-rootfs": "compose:ComposeRootfs",
    "compose-sign": "compose:ComposeSign",
    "compose-tree": "compose:ComposeTree",
    "confirm": "live:Confirm",
    "container-commit": "images:ContainerCommit",
    "container-prepare": "images:ContainerPrepare",
    "deploy": "deployments:Deploy",
    "finalize-deployment": "deployments:FinalizeDeployment",
    "initramfs": "deployments:Initramfs",
    "initramfs-etc": "deployments:InitramfsEtc",
    "install": "packages:Install",
    "install-to-disk": "images:InstallToDisk",
    "install-to-existing-root": "images:InstallToExistingRoot",
    "kargs": "deployments:Kargs",
    "overlay-backup": "overlays:OverlayBackup",
    "overlay-check": "overlays:OverlayCheck",
    "overlay-cleanup": "overlays:OverlayCleanup",
    "overlay-restore": "overlays:OverlayRestore",
    "override": "packages:Override",
    "pin": "deployments:Pin",
    "rebase": "deployments:Rebase",
    "recover": "live:Recover",
    "refresh-md": "archives:RefreshMd",
    "reset": "packages:Reset",
    "rollback": "deployments:Rollback",
    "rollback-live": "live:RollbackLive",
    "run": "packages:Run",
    "uninstall": "packages:Uninstall",
    "unlock": "overlays:Unlock",
    "unlock-discard": "overlays:UnlockDiscard",
    "unlock-save": "overlays:UnlockSave",
    "unpin": "deployments:Unpin",
    "upgrade": "packages:Upgrade",
    "usroverlay": "overlays:EditOverlay",
}


def kind_of(verb: Any) -> type[Request]:
    """Return the request of a verb; UsageError where there is none."""
    module, _, name = find(VERBS, "verb", verb).partition(":")
    kind: type[Request] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return kind


def read_request(verb: Any, value: Any) -> Request:
    """Return the request of a verb from a JSON object; UsageError names a mistake."""
    return kind_of(verb).from_json(value)
