"""Who may make which request: each verb has an action of polkit, and further ones for what its options do."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.errors import NotAuthorized
from apt_ostree.model import authorization
from apt_ostree.model.automatic_settings import Policy
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import Scope
from apt_ostree.model.overlay_edit import DefinitionEdit
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.request import Request
from apt_ostree.model.requests import VERBS
from apt_ostree.model.requests.automatic import AutomaticUpdate
from apt_ostree.model.requests.compose import ComposeTree
from apt_ostree.model.requests.deployments import Deploy, Rebase
from apt_ostree.model.requests.live import ApplyLive, Moment, Recover, RollbackLive
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.overlays import EditOverlay
from apt_ostree.model.requests.packages import Install, Override, Reset, Upgrade
from apt_ostree.model.selection import Selection

POLICY = Path(__file__).resolve().parents[2] / "data/polkit/org.debian.aptostree1.policy"
NEEDED = LiveOptions(restart_services=RestartPolicy.NEEDED)


def test_each_verb_has_an_action():
    of_root = {verb for verb in VERBS if verb.startswith(("compose-", "container-", "install-to-"))}
    assert set(VERBS) - set(authorization.ACTIONS) == of_root
    assert set(authorization.ACTIONS) <= set(VERBS)


def test_each_action_is_described():
    described = {node.attrib["id"].rpartition(".")[2] for node in ET.parse(POLICY).getroot().iter("action")}
    others = {"install-local-packages", "overlays-own", "restart-services", "cancel"}
    used = {*authorization.ACTIONS.values(), *others}
    assert described == used


def test_nobody_is_allowed_without_a_password():
    kinds = {"allow_any", "allow_inactive", "allow_active"}
    given = {node.text for node in ET.parse(POLICY).getroot().iter() if node.tag in kinds}
    assert given == {"auth_admin", "auth_admin_keep"}


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (Install(packages=("x",)), ["install-uninstall-packages"]),
        (Override(remove=("x",), install=("y",)), ["override", "install-uninstall-packages"]),
        (Override(remove=("x",), uninstall=("y",)), ["override", "install-uninstall-packages"]),
        (Reset(), ["override"]),
        (Upgrade(install=("x",)), ["upgrade", "install-uninstall-packages"]),
        (Deploy(revision="1", uninstall=("x",)), ["deploy", "install-uninstall-packages"]),
        (Rebase(refspec="x", files=(OpenFile(3, "x.deb"),)), ["rebase", "install-local-packages"]),
        (Install(files=(OpenFile(3, "x.deb"),)), ["install-uninstall-packages", "install-local-packages"]),
        (Install(packages=("x",), replace_files=True), ["install-uninstall-packages", "override"]),
        (
            Override(remove=("x",), install_files=(OpenFile(3, "y.deb"),)),
            ["override", "install-local-packages"],
        ),
        (Reset(files=(OpenFile(3, "x.deb"),)), ["override", "install-local-packages"]),
        (Upgrade(deploy=DeployOptions(live=LiveOptions())), ["upgrade", "apply-live"]),
        (Upgrade(deploy=DeployOptions(live=NEEDED)), ["upgrade", "apply-live", "restart-services"]),
        (ApplyLive(), ["apply-live"]),
        (ApplyLive(target="x"), ["apply-live", "install-uninstall-packages"]),
        (ApplyLive(selection=Selection(security=True)), ["apply-live", "install-uninstall-packages"]),
        (ApplyLive(live=NEEDED), ["apply-live", "restart-services"]),
        (RollbackLive(restart_services=RestartPolicy.ALL), ["apply-live", "restart-services"]),
        (EditOverlay(), ["overlays"]),
        (EditOverlay(live=NEEDED), ["overlays", "restart-services"]),
        (Recover(), ["apply-live"]),
        (AutomaticUpdate(), ["upgrade"]),
        (AutomaticUpdate(policy=Policy.LIVE), ["upgrade", "apply-live", "restart-services"]),
    ],
)
def test_what_a_request_needs(request_: Request, names: list[str]):
    assert authorization.actions_of(request_) == tuple(f"org.debian.aptostree1.{name}" for name in names)


@pytest.mark.parametrize(
    "request_",
    [
        ComposeTree(treefile="x"),
        AutomaticUpdate(after_reboot=True),
        *(Recover(at=at) for at in list(Moment)[1:]),
    ],
)
def test_what_only_root_may_do_without_the_service(request_: Request):
    with pytest.raises(NotAuthorized, match="not possible through the service"):
        authorization.actions_of(request_)


MINE = DefinitionEdit(scope=Scope.USER, user="jo")


@pytest.mark.parametrize(
    ("request_", "own"),
    [
        (EditOverlay(name="x", create=True, definition=MINE), True),
        (EditOverlay(name="x", create=True), False),  # of the system
        (EditOverlay(name="x", create=True, definition=DefinitionEdit(scope=Scope.USER, user="eve")), False),
        (EditOverlay(name="x", create=True, definition=replace(MINE, allow=("setuid",))), False),
        (EditOverlay(name="mine", remove=True), True),
        (EditOverlay(name="mine", definition=DefinitionEdit(scope=Scope.SYSTEM)), False),
        (EditOverlay(name="mine", definition=DefinitionEdit(user="eve")), False),
        (EditOverlay(name="eves", remove=True), False),
        (EditOverlay(name="systems", enable=False), False),
        (EditOverlay(enable=False), False),  # the one that was edited last may be anybody's
        (Install(packages=("x",)), False),
    ],
)
def test_an_overlay_of_ones_own(request_: Request, own: bool):
    owners = {"mine": "jo", "eves": "eve"}
    assert authorization.is_own(request_, "jo", lambda name: owners.get(name, "")) == own
    assert ("org.debian.aptostree1.overlays-own" in authorization.actions_of(request_, own=own)) == own
