"""The policy where it is enforced: for every verb that it is about, at each place, and for no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from apt_ostree.core import (
    apply_live,
    approvals,
    deploy,
    deployments,
    override,
    packages,
    policing,
    policy,
    rebase,
)
from apt_ostree.core.build import layering
from apt_ostree.core.build.layering import Built
from apt_ostree.core.deploy import Target
from apt_ostree.core.overlays import unlock, usroverlay
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, NotAuthorized, Refused, UsageError
from apt_ostree.model import layout
from apt_ostree.model.caller import Caller
from apt_ostree.model.origin import Origin
from apt_ostree.model.overlay import EditAction, UnlockMode
from apt_ostree.model.overlay_edit import DefinitionEdit, PathEdit
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.model.policy import Setting, Times
from apt_ostree.model.queries import PolicySettings
from apt_ostree.model.requests import VERBS, kind_of
from apt_ostree.model.requests.deployments import Cleanup, Deploy, FinalizeDeployment, Rebase, Rollback
from apt_ostree.model.requests.live import ApplyLive, Recover, RollbackLive
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.overlays import EditOverlay, Unlock, UnlockDiscard
from apt_ostree.model.requests.packages import Install, Reset, Upgrade
from apt_ostree.model.requests.policy import Approve
from apt_ostree.system import approvals as records
from apt_ostree.system import calendar, journal, openfiles
from tests.unit import repos
from tests.unit.repos import System

FILE = "/etc/apt-ostree/apt-ostree.conf.d/site.conf"


@dataclass
class Site:
    """The system with a policy."""

    system: System
    journal: list[tuple[str, dict[str, str]]]
    uid: int = 0

    def set(self, **lines: str) -> None:
        policy = tuple(Setting(FILE, "Policy", key, value) for key, value in lines.items())
        self.system.settings = replace(self.system.settings, policy=policy)

    def run(self, function: Callable[[Transaction, Any], Any], request: Any) -> Any:
        """Run a verb's function as the worker does."""
        tx = Transaction(self.system.events.append, request.title, reach=request.reach)
        tx.__dict__["caller"] = Caller(self.uid, None, f"user {self.uid}", "")
        policing.admit(tx)
        return policing.told(tx, function(tx, request))

    def refused(self, function: Callable[[Transaction, Any], Any], request: Any) -> list[dict[str, Any]]:
        """Run a verb that the policy refuses, and that changes nothing; return its reasons."""
        before = self.system.order(), self.system.overlay_states()
        with pytest.raises(Refused) as caught:
            self.run(function, request)
        assert (self.system.order(), self.system.overlay_states()) == before
        assert len(caught.value.details) == len(caught.value.reasons)
        return [dict(reason) for reason in caught.value.reasons]


@pytest.fixture
def site(system: System, monkeypatch) -> Site:
    made = Site(system, [])
    monkeypatch.setattr(
        journal, "send", lambda lines, fields=None, **_how: made.journal.append((*lines, fields))
    )
    return made


@pytest.fixture
def built(system: System, monkeypatch) -> str:
    """The commit that a build gives, with the package `extra` on top of the base."""
    commit = repos.write_commit(
        system.repo,
        {**repos.ONE, "usr/bin/extra": "x"},
        ref="layered",
        packages=repos.PACKAGES["two"],
        **{layout.META_BASE.replace("-", "_"): system.one},
    )

    @contextmanager
    def opened(tx, start, sources, **_options):
        session = type("Session", (), {"tx": tx, "exact": (), "kept": {}})
        yield session

    def install(_session, _goal, _label, **options):
        return Built(PackagePlan(), None if options["dry_run"] else commit)

    monkeypatch.setattr(layering, "opened", opened)
    monkeypatch.setattr(layering, "install", install)
    return commit


@pytest.mark.parametrize("name", ["extra", "extra:i386", "extra=1"])
def test_a_request_is_refused_before_the_lists_are_read(site: Site, monkeypatch, name):
    site.set(NeverPackages="extra")
    monkeypatch.setattr(layering, "opened", None)
    (reason,) = site.refused(packages.install, Install(packages=(name,)))
    assert reason["rule"] == "never-packages" and reason["subject"] == "extra"
    assert reason["setting"] == {"file": FILE, "section": "Policy", "key": "NeverPackages", "value": "extra"}


@pytest.mark.parametrize(
    ("function", "request_"),
    [
        (packages.upgrade, Upgrade(base=False, install=("extra",))),
        (rebase.rebase, Rebase(refspec="two", install=("extra=1",))),
        (rebase.deploy_revision, Deploy(revision="2", install=("extra",))),
        (override.reset, Reset(install=("extra",))),
    ],
)
def test_a_package_is_refused_whatever_verb_layers_it(site: Site, monkeypatch, function, request_):
    repos.write_commit(site.system.repo, repos.TWO, ref="two", packages=repos.PACKAGES["one"])
    version = {"version": "2"}
    repos.write_commit(site.system.repo, repos.TWO, ref="one", packages=repos.PACKAGES["one"], **version)
    site.set(NeverPackages="extra")
    monkeypatch.setattr(layering, "opened", None)
    (reason,) = site.refused(function, request_)
    assert (reason["rule"], reason["subject"]) == ("never-packages", "extra")


def test_what_was_deployed_earlier_does_not_become_live(site: Site, built: str):
    site.run(packages.install, Install(packages=("extra",)))
    assert site.system.order()[0] == built
    site.set(OnlyPackages="tool")
    (reason,) = site.refused(apply_live.apply_live, ApplyLive(live=LiveOptions(force=True)))
    assert (reason["rule"], reason["subject"]) == ("only-packages", "extra")
    assert site.system.kernel.sources() == []
    site.set(OnlyPackages="extra tool")
    assert site.run(apply_live.apply_live, ApplyLive(live=LiveOptions(force=True))).live


def test_packages_of_a_new_base_are_its_vendors(site: Site):
    site.set(NeverPackages="*")
    with site.system.open() as machine:
        machine.stage(site.system.two, Origin("two"), machine.deployments().all[0])
    assert site.run(apply_live.apply_live, ApplyLive(live=LiveOptions(force=True))).live


def test_a_preview_tells_and_is_not_refused(site: Site, built: str):
    site.set(NeverPackages="ext*")
    result = site.run(packages.install, Install(packages=("extra",), deploy=DeployOptions(dry_run=True)))
    assert not result.details["policy"]["allowed"]
    assert site.system.plans("policy") == [result.details["policy"]]


def test_the_result_tells_what_allowed_it(site: Site, built: str):
    site.set(NeverPackages="telnet")
    policy = site.run(packages.install, Install(packages=("extra",))).details["policy"]
    assert policy["allowed"] and [reason["rule"] for reason in policy["reasons"]] == ["never-packages"]
    site.set()
    assert "policy" not in site.run(packages.uninstall, kind_of("uninstall")(packages=("extra",))).details


def test_root_overrides_and_the_journal_keeps_why(site: Site, built: str):
    site.set(NeverPackages="ext*")
    request = Install(packages=("extra",), deploy=DeployOptions(override_policy="incident 4711"))
    result = site.run(packages.install, request)
    assert result.details["policy"]["override"] == "incident 4711"
    ((text, fields),) = site.journal
    assert "incident 4711" in text and FILE in text
    assert fields["APT_OSTREE_POLICY_RULE"] == "never-packages"
    assert fields["APT_OSTREE_POLICY_SETTING"] == f"{FILE}: [Policy] NeverPackages=ext*"


def test_nobody_else_overrides(site: Site):
    site.set(NeverPackages="ext*")
    site.uid = 1000
    request = Install(packages=("extra",), deploy=DeployOptions(override_policy="because"))
    with pytest.raises(NotAuthorized):
        site.run(packages.install, request)
    site.uid = 0
    site.set(NeverPackages="ext*", Override="no")
    assert {r["rule"] for r in site.refused(packages.install, request)} == {"never-packages", "override"}
    assert site.journal == []


def test_a_mistake_refuses_changes_and_no_way_back(site: Site, built: str):
    site.run(packages.install, Install(packages=("extra",)))
    site.run(apply_live.apply_live, ApplyLive(live=LiveOptions(force=True)))
    site.set(Never="x")
    for function, request in (
        (packages.upgrade, Upgrade()),
        (apply_live.apply_live, ApplyLive()),
        (usroverlay.usroverlay, EditOverlay(name="x", create=True)),
    ):
        with pytest.raises(UsageError, match=r"site\.conf: unknown setting \[Policy\] Never"):
            site.run(function, request)
    assert site.run(apply_live.rollback_live, RollbackLive()).changed
    assert not site.run(apply_live.apply_live, ApplyLive(reset=True)).changed
    assert site.run(deployments.cleanup, Cleanup(pending=True)).changed
    with pytest.raises(UsageError, match=r"site\.conf"):
        policy.policy_settings(PolicySettings())


def test_an_overlay_can_be_hidden_and_removed_with_a_mistake(site: Site, tmp_path):
    (tmp_path / "f").write_text("x")
    with openfiles.opened(str(tmp_path / "f")) as file:
        add = PathEdit(action=EditAction.ADD, path="/usr/share/f", source=file)
        site.run(usroverlay.usroverlay, EditOverlay(name="x", create=True, edits=(add,)))
    site.set(Never="x")
    site.run(usroverlay.usroverlay, EditOverlay(name="x", enable=False))
    site.run(usroverlay.usroverlay, EditOverlay(name="x", remove=True))
    assert site.system.overlay_states() == {}


# --- approvals


def approved(site: Site, plan: str, uid: int) -> Any:
    before, site.uid = site.uid, uid
    try:
        return site.run(approvals.approve, Approve(plan=plan))
    finally:
        site.uid = before


@pytest.mark.parametrize(
    ("function", "request_", "needs"),
    [
        (packages.upgrade, Upgrade(base=False, install=("extra",)), True),
        (
            packages.uninstall,
            kind_of("uninstall")(packages=("x",), idempotent=True, install=("extra",)),
            True,
        ),
        (override.override, kind_of("override")(remove=("tool",), install=("extra",)), True),
        (override.reset, Reset(install=("extra",)), True),
        (packages.upgrade, Upgrade(base=False), False),
    ],
)
def test_an_approval_of_packages_is_needed_whatever_verb_layers_them(
    site: Site, built: str, monkeypatch, function, request_, needs
):
    monkeypatch.setattr(calendar, "seconds_of", lambda _text: 3600.0)
    site.set(Approval="install")
    if needs:
        (reason,) = site.refused(function, request_)
        assert reason["rule"] == "approval"
    else:
        assert site.run(function, request_).changed


def test_a_plan_is_approved_by_another_person(site: Site, built: str, monkeypatch):
    monkeypatch.setattr(calendar, "seconds_of", lambda _text: 3600.0)
    site.set(Approval="install apply-live finalize-deployment", ApprovalBy="other")
    site.uid = 1000
    request = Install(packages=("extra",))
    (reason,) = site.refused(packages.install, request)
    assert (reason["rule"], reason["setting"]["key"]) == ("approval", "Approval")
    plan = reason["subject"]
    approved(site, plan, 1000)  # by the same person
    (reason,) = site.refused(packages.install, request)
    assert (reason["subject"], reason["setting"]["key"]) == (plan, "ApprovalBy")
    approved(site, plan, 1001)
    assert site.refused(packages.install, Install(packages=("more",)))[0]["subject"] != plan
    preview = site.run(packages.install, request.preview).details["policy"]
    assert preview["allowed"] and preview["reasons"][0]["subject"] == plan
    assert site.run(packages.install, request).next_boot
    # The next step is another plan.
    live = ApplyLive(live=LiveOptions(force=True))
    (reason,) = site.refused(apply_live.apply_live, live)
    approved(site, reason["subject"], 1001)
    assert site.run(apply_live.apply_live, live).live


def test_an_approval_expires(site: Site, built: str, monkeypatch):
    monkeypatch.setattr(calendar, "seconds_of", lambda _text: 3600.0)
    site.set(Approval="install")
    plan = site.refused(packages.install, Install(packages=("extra",)))[0]["subject"]
    assert approved(site, plan, 0).details["plan"] == plan
    monkeypatch.setattr(calendar, "seconds_of", lambda _text: -1.0)
    (reason,) = site.refused(packages.install, Install(packages=("extra",)))
    assert "expired" in reason["text"]
    other = "1" * 40
    approved(site, other, 0)
    assert [approval.plan for approval in records.read()] == [other]


def test_nothing_to_do_needs_no_approval(site: Site, built: str, monkeypatch):
    monkeypatch.setattr(calendar, "seconds_of", lambda _text: 3600.0)
    site.set(Approval="uninstall kargs")
    assert not site.run(packages.uninstall, kind_of("uninstall")(packages=("x",), idempotent=True)).changed


@pytest.fixture
def overlaid(site: Site, tmp_path, monkeypatch) -> Iterator[Callable[..., EditOverlay]]:
    """The request to make or change an overlay with one file, where changes of overlays need an approval."""
    monkeypatch.setattr(calendar, "seconds_of", lambda _text: 3600.0)
    site.set(Approval="usroverlay")
    with ExitStack() as stack:

        def made(text: str, **more: Any) -> EditOverlay:
            (tmp_path / text).write_text(text)
            source = stack.enter_context(openfiles.opened(str(tmp_path / text)))
            action = EditAction.ADD if more.setdefault("create", True) else EditAction.MODIFY
            edit = PathEdit(action=action, path="/usr/share/f", source=source)
            return EditOverlay(**{"name": "x", "edits": (edit,), **more})

        yield made


def plan_of(site: Site, request: Any, function: Any = usroverlay.usroverlay) -> str:
    (reason,) = site.refused(function, request)
    return str(reason["subject"])


def test_an_approval_of_an_overlay_is_for_its_content(site: Site, overlaid, monkeypatch):
    plan = plan_of(site, overlaid("one"))
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)  # which commits of overlays have
    approved(site, plan, 0)
    assert plan_of(site, overlaid("two")) != plan
    assert plan_of(site, overlaid("one", live=LiveOptions(force=True))) != plan
    assert site.run(usroverlay.usroverlay, overlaid("one")).live
    # It is for one change.
    site.run(usroverlay.usroverlay, EditOverlay(name="x", enable=False))
    again = EditOverlay(name="x", enable=True)
    plan = plan_of(site, again)
    approved(site, plan, 0)
    assert site.run(usroverlay.usroverlay, again).live
    site.run(usroverlay.usroverlay, EditOverlay(name="x", enable=False))
    assert plan_of(site, again) != plan


def test_what_an_overlay_includes_is_approved_with_it(site: Site, overlaid):
    def includes() -> EditOverlay:
        return EditOverlay(name="a", create=True, definition=DefinitionEdit(inherits=("b",)))

    site.run(usroverlay.usroverlay, overlaid("good", name="b", enable=False))  # nothing shows it
    plan = plan_of(site, includes())
    approved(site, plan, 0)
    site.run(usroverlay.usroverlay, overlaid("evil", name="b", create=False))
    assert plan_of(site, includes()) != plan
    assert site.system.overlay_states().keys() == {"system/b"}


def test_what_is_shown_later_is_approved_when_it_is_made(site: Site, overlaid):
    later = DefinitionEdit(when="machine.hostname == 'no-such-host'")
    assert plan_of(site, overlaid("x", definition=later))
    assert plan_of(site, Unlock(mode=UnlockMode.HOTFIX), unlock.unlock)
    assert plan_of(site, Unlock(), unlock.unlock)


# --- the scanner


def test_the_scanner_looks_at_new_and_changed_files_once(site: Site):
    seen: list[tuple[set[str], str]] = []

    def scan(words: list[str]) -> tuple[int, str]:
        top = Path(words[-1])
        found = {str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()}
        seen.append((found, words[1]))
        return 0, ""

    site.system.programs.results["scan"] = scan
    site.set(Scanner="scan --all")
    target = Target(Origin("two"), site.system.two)
    live = DeployOptions(live=LiveOptions(force=True))
    result = site.run(lambda tx, request: _deployed(tx, target, request), Install(deploy=live))
    assert seen == [({"bin/tool", "share/new", "etc/ut/tool.conf"}, "--all")]
    assert result.details["policy"]["allowed"]
    assert not list((site.system.place / "ostree").rglob("work/*"))


def _deployed(tx: Transaction, target: Target, request: Install) -> Any:
    with tx.changing("test"):
        return deploy.deploy(tx, target, request.deploy)


@pytest.mark.parametrize("live", [None, LiveOptions(force=True)])
def test_what_the_scanner_does_not_accept_is_not_deployed(site: Site, live):
    site.system.programs.results["scan"] = lambda _words: (1, "tool: EICAR FOUND\n")
    site.set(Scanner="scan")
    target = Target(Origin("two"), site.system.two)

    def function(tx: Transaction, request: Install) -> Any:
        return _deployed(tx, target, request)

    (reason,) = site.refused(function, Install(deploy=DeployOptions(live=live)))
    assert (reason["rule"], "EICAR FOUND" in reason["text"]) == ("scanner", True)
    assert site.system.kernel.sources() == []
    request = Install(deploy=DeployOptions(live=live, override_policy="a false alarm"))
    assert site.run(function, request).changed
    assert [fields["APT_OSTREE_POLICY_RULE"] for _text, fields in site.journal] == ["scanner"]


def test_a_scanner_that_cannot_run_accepts_nothing(site: Site):
    def missing(_words: list[str]) -> tuple[int, str]:
        raise ExternalFailure("the program 'scan' is not installed")

    site.system.programs.results["scan"] = missing
    site.set(Scanner="scan")
    target = Target(Origin("two"), site.system.two)
    (reason,) = site.refused(lambda tx, request: _deployed(tx, target, request), Install())
    assert "is not installed" in reason["text"]


def test_a_preview_has_nothing_to_look_at(site: Site, built: str):
    site.system.programs.results["scan"] = lambda _words: pytest.fail("it ran")
    site.set(Scanner="scan")
    site.run(packages.install, Install(packages=("extra",)).preview)


# --- windows


@pytest.fixture
def moment(monkeypatch) -> Callable[[float | None, float | None], None]:
    """Say how each moment lies to the windows: when the open one closes, and when one opens."""
    times: list[Times] = [Times(None)]
    monkeypatch.setattr(calendar, "times", lambda _windows, _now: times[0])

    def set_times(until: float | None, opens: float | None) -> None:
        times[0] = Times(until, opens, "" if opens is None else "Sat")

    return set_times


def test_a_closed_window_holds_up_changes_and_says_when_it_opens(site: Site, built: str, moment):
    site.set(ApplyWindow="Sat 02:00 for 4h")
    moment(None, 300.0)
    for function, request in (
        (packages.upgrade, Upgrade()),
        (packages.install, Install(packages=("extra",))),
        (apply_live.apply_live, ApplyLive()),
        (usroverlay.usroverlay, EditOverlay(name="x", create=True)),
        (deployments.finalize, FinalizeDeployment(allow_missing_checksum=True)),
    ):
        (reason,) = site.refused(function, request)
        assert (reason["rule"], reason["opens"]) == ("apply-window", 300.0)
    lock = DeployOptions(lock_finalization=True)
    assert site.run(packages.install, Install(packages=("extra",), deploy=lock)).next_boot
    moment(200.0, 300.0)
    assert site.run(packages.uninstall, kind_of("uninstall")(packages=("extra",))).changed


def test_a_window_that_closes_meanwhile_holds_the_change_up(site: Site, monkeypatch):
    site.set(ApplyWindow="Sat 02:00 for 4h")
    left = [Times(200.0)]
    monkeypatch.setattr(calendar, "times", lambda _windows, _now: left.pop() if left else Times(None))
    with site.system.open() as machine:
        machine.stage(site.system.two, Origin("two"), machine.deployments().all[0])
    (reason,) = site.refused(apply_live.apply_live, ApplyLive(live=LiveOptions(force=True)))
    assert reason["rule"] == "apply-window"


def test_a_window_for_reboots_holds_up_what_ends_with_one(site: Site, built: str, moment):
    site.set(RebootWindow="Sun for 1d")
    moment(None, 300.0)
    request = Install(packages=("extra",), deploy=DeployOptions(reboot=True))
    assert [r["rule"] for r in site.refused(packages.install, request)] == ["reboot-window"]
    assert site.run(packages.install, Install(packages=("extra",))).next_boot


def test_a_text_that_systemd_cannot_read_names_its_place(site: Site, monkeypatch):
    def times(_windows, _now):
        raise UsageError("'Sot' is no calendar event")

    monkeypatch.setattr(calendar, "times", times)
    site.set(ApplyWindow="Sot for 4h")
    with pytest.raises(UsageError, match=r"site\.conf: \[Policy\] ApplyWindow cannot be read: 'Sot'"):
        site.run(packages.upgrade, Upgrade())
    with pytest.raises(Refused, match="nothing was changed live"):
        site.run(apply_live.rollback_live, RollbackLive())


# --- which requests


def smallest(verb: str) -> Any:
    from tests.unit import request_cases

    return kind_of(verb).from_json(request_cases.smallest(kind_of(verb)))


#: Verbs that the policy is about, in their smallest form.
GOVERNED = {
    "apply-live", "bootloader-update", "deploy", "finalize-deployment", "initramfs", "initramfs-etc",
    "install", "kargs", "overlay-restore", "override", "rebase", "reset", "run", "uninstall", "unlock",
    "unlock-save", "upgrade", "usroverlay",
}  # fmt: skip


#: Verbs that go back, repair, tidy or read, those that do not change this system, and the automatic update:
#: each of its steps is judged.
FREE = {
    "approve", "automatic-update", "bootloader-rollback", "cleanup", "compose-commit", "compose-disk",
    "compose-extensions",
    "compose-image", "compose-install", "compose-postprocess", "compose-publish", "compose-rootfs",
    "compose-sign", "compose-tree", "confirm", "container-commit", "container-prepare",
    "install-to-disk", "install-to-existing-root", "overlay-backup", "overlay-check", "overlay-cleanup",
    "pin", "recover",
    "refresh-md", "rollback", "rollback-live", "unlock-discard", "unpin",
}  # fmt: skip


def test_each_verb_is_one_or_the_other():
    assert set(VERBS) == GOVERNED | FREE and not GOVERNED & FREE


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "overlay-restore"])
def test_which_verbs_it_is_about(verb):
    reach = smallest(verb).reach
    assert (reach is not None) == (verb in GOVERNED)
    if reach:
        assert smallest(verb).preview.reach.preview


@pytest.mark.parametrize(
    "request_back",
    [
        ApplyLive(reset=True),
        RollbackLive(),
        RollbackLive(packages=("x",)),
        Rollback(),
        Recover(),
        EditOverlay(name="x", remove=True),
        EditOverlay(name="x", enable=False),
        UnlockDiscard(),
    ],
)
def test_what_goes_back_is_free(request_back):
    assert request_back.reach is None


@pytest.mark.parametrize(
    ("request_made", "preview", "applies"),
    [
        (Install(), False, True),
        (Install(deploy=DeployOptions(reboot=True)), False, True),
        (Install(deploy=DeployOptions(dry_run=True)), True, True),
        (Install(deploy=DeployOptions(download_only=True)), False, False),
        (Install(deploy=DeployOptions(lock_finalization=True)), False, False),
        (Install(deploy=DeployOptions(lock_finalization=True, live=LiveOptions())), False, True),
        (Upgrade(check=True), True, True),
        (ApplyLive(dry_run=True), True, True),
        (FinalizeDeployment(checksum="0" * 64), False, True),
        (EditOverlay(name="x", enable=True), False, True),
        (Unlock(dry_run=True), True, True),
    ],
)
def test_how_far_a_request_goes(request_made, preview, applies):
    reach = request_made.reach
    assert reach and (reach.preview, reach.applies) == (preview, applies)
    deploy = getattr(request_made, "deploy", DeployOptions())
    assert reach.reboots == (deploy.reboot or isinstance(request_made, FinalizeDeployment))


def test_a_preview_reads_what_is_here():
    made = Install(packages=("x",), deploy=DeployOptions(live=LiveOptions(), override_policy="y"))
    preview = made.preview
    options = DeployOptions(
        dry_run=True, cache_only=True, live=LiveOptions(), judge=True, override_policy="y"
    )
    assert preview == Install(packages=("x",), deploy=options)


def test_a_preview_builds_nothing(site: Site, built: str, monkeypatch):
    made = []
    build = layering.install

    def install(session, goal, label, **options):
        made.append(options["dry_run"])
        return build(session, goal, label, **options)

    monkeypatch.setattr(layering, "install", install)
    live = DeployOptions(live=LiveOptions(force=True))
    for function, request in (
        (packages.install, Install(packages=("extra",), deploy=live)),
        (packages.run, kind_of("run")(program="true", deploy=live)),
    ):
        site.run(function, request.preview)
    assert made == [True, True]
    assert site.system.order() == [site.system.one]
