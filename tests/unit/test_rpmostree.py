"""What rpm-ostree's clients are told, by type, and the requests and actions of their calls."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from apt_ostree.daemon.rpmostree import objects, peer, stateroot, sysroot
from apt_ostree.daemon.rpmostree.peer import end_of, read_event
from apt_ostree.daemon.rpmostree.replies import structure
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.automatic_settings import Policy
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.origin import Origin
from apt_ostree.model.package import Package, PackageChange
from apt_ostree.model.requests.archives import RefreshMd
from apt_ostree.model.requests.automatic import AutomaticUpdate
from apt_ostree.model.requests.deployments import (
    Cleanup,
    Deploy,
    Initramfs,
    InitramfsEtc,
    Kargs,
    Rebase,
    Rollback,
)
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.packages import Install, Override, Reset, Uninstall, Upgrade
from apt_ostree.model.rpmostree import calls, deployments, names, packages
from apt_ostree.model.signature import Signature
from apt_ostree.model.status import Commit, DeploymentStatus
from tests.unit.test_daemon import interface

DATA = Path(__file__).resolve().parents[2] / "data"
XML = DATA / "dbus/org.projectatomic.rpmostree1.xml"
#: What cockpit and GNOME Software read without asking whether it is there.
NEEDED = {
    "id": "s", "osname": "s", "checksum": "s", "timestamp": "t", "booted": "b", "staged": "b",
    "packages": "as", "requested-local-packages": "as",
}  # fmt: skip
UPGRADE, PACKAGES, LOCAL, OVERRIDE = (
    "upgrade",
    "install-uninstall-packages",
    "install-local-packages",
    "override",
)
#: As GNOME Software sends them, all of them always.
BOOLEANS = dict.fromkeys(
    (
        "reboot", "allow-downgrade", "cache-only", "download-only", "skip-purge", "no-pull-base", "dry-run",
        "no-overrides",
    ),
    False,
)  # fmt: skip
KEEP = {"no-pull-base": True}
update = partial(calls.update_deployment, files=())

REPLACING = Install(files=(OpenFile(0, "/x.deb"),), replace_files=True)
SIGNATURE = Signature(True, False, False, False, False, "AB", 1, 0, "EdDSA", "SHA512", "OS", "os@example.com")


@pytest.mark.parametrize(
    ("name", "code"),
    [(names.SYSROOT, sysroot.Sysroot), (names.OS, stateroot.OS), (names.TRANSACTION, peer.Connection)],
)
def test_the_described_interface_is_the_codes(name: str, code: Any):
    assert interface(XML.read_text(), name) == interface(code.__dbus_xml__, name)


def test_all_actions_are_registered():
    made = [
        calls.upgrade({}), calls.rollback({}), calls.cleanup(["base"], "x"), calls.refresh_md({}),
        calls.deploy("x", {}), calls.rebase("x", {}, []), calls.set_initramfs_state(True, [], {}),
        calls.download_update(), calls.pkg_change({}, [], []), calls.clear_rollback_target({}, "x"),
        update({"install-packages": ["a"]}, {"no-initramfs": True, "no-overrides": True, "apply-live": True}),
        calls.update_deployment({"install-local-packages": [0]}, {}, ["x"]),
    ]  # fmt: skip
    needed = {action for call in made for action in call.actions} | {sysroot._RELOAD}
    files = (DATA / "polkit").glob("*.policy")
    assert needed <= {node.attrib["id"] for file in files for node in ET.parse(file).iter("action")}


def test_the_initramfs_is_reset_and_nothing_is_upgraded():
    keep = {"no-initramfs": True, "no-pull-base": True}
    call = update({}, keep)
    assert call.request == Reset(initramfs=True) and [a.rpartition(".")[2] for a in call.actions] == [
        "bootconfig"
    ]
    whole = update({"install-packages": ["a"]}, keep | {"no-layering": True, "no-overrides": True})
    assert whole.request == Reset(layers=True, overrides=True, initramfs=True, install=("a",))
    with pytest.raises(UsageError, match="no-initramfs"):
        update({"uninstall-packages": ["a"]}, keep)


def test_a_deployment_has_all_keys_with_their_types():
    origin = Origin("r:debian/13", requested=("a",))
    one = Deployment(0, "debian", "c" * 64, 1, "x", origin, True, False, False, "none")
    base = Commit("b" * 64, 5, "13.1", {"version": "13.1", "ostree.linux": "6.1"})
    row = DeploymentStatus(one, Commit("c" * 64, 6), base=base, layered=("a",)).to_json()
    value = structure(deployments.deployment(row))
    kinds = {key: one.get_type_string() for key, one in value.items()}
    assert kinds.items() >= NEEDED.items() and kinds.items() <= deployments.DEPLOYMENT.items()
    assert deployments.DEPLOYMENT.keys() - kinds.keys() == {
        "container-image-reference",
        "container-image-reference-digest",
        "endoflife",
        "version",
        "finalization-locked",
        "initramfs-args",
        "initramfs-etc",
        "remote-error",
        "live-inprogress",
        "live-replaced",
    }
    assert value["base-commit-meta"].unpack() == base.metadata
    assert value["signatures"].unpack() == []
    signed = DeploymentStatus(one, base, gpg_enabled=True, signatures=(SIGNATURE,)).to_json()
    (signature,) = structure(deployments.deployment(signed))["signatures"].unpack()
    assert (signature[0], signature[5], signature[8], signature[11]) == (
        True,
        "AB",
        "EdDSA",
        "os@example.com",
    )
    changed = PackageChange("up", "amd64", "1:1-2", "3")
    removed = (Package("gone", "2.0-1", "all"),)
    origin = replace(origin, requested=("up=3",), removed=("gone",))
    over = DeploymentStatus(replace(one, origin=origin), base, upgraded=(changed,), removed=removed).to_json()
    value = structure(deployments.deployment(over))
    assert value["base-removals"].get_type_string() == "av"
    assert value["base-removals"].unpack() == [("gone-2.0-1.all", "gone", 0, "2.0", "1", "all")]
    assert value["base-local-replacements"].get_type_string() == "a(vv)"
    assert value["base-local-replacements"].unpack() == [
        (("up-3.amd64", "up", 0, "3", "", "amd64"), ("up-1:1-2.amd64", "up", 1, "1", "2", "amd64"))
    ]
    without = DeploymentStatus(one, Commit("c" * 64, 6)).to_json()
    assert {"version", "base-version"}.isdisjoint(deployments.deployment(without | {"origin": None}))


def test_an_object_has_all_properties():
    assert objects.Object.types.__func__(stateroot.OS) == {
        "Name": "s", "BootedDeployment": "a{sv}", "DefaultDeployment": "a{sv}", "RollbackDeployment": "a{sv}",
        "CachedUpdate": "a{sv}", "HasCachedUpdateRpmDiff": "b",
    }  # fmt: skip


DIFF = {
    "added": [{"name": "new", "version": "1", "architecture": "all"}],
    "removed": [{"name": "old", "version": "2", "architecture": "amd64"}],
    "changed": [
        {"name": "up", "architecture": "amd64", "old": "1.9", "new": "1.10"},
        {"name": "down", "architecture": "amd64", "old": "1:1", "new": "2"},
        {"name": "above", "architecture": "amd64", "old": "1~rc1", "new": "1"},
    ],
}


def test_differences_are_sorted_by_kind_and_name():
    assert packages.differences(DIFF) == [
        ("new", 0, {"NewPackage": ("new", "1", "all")}),
        ("old", 1, {"PreviousPackage": ("old", "2", "amd64")}),
        ("above", 2, {"PreviousPackage": ("above", "1~rc1", "amd64"), "NewPackage": ("above", "1", "amd64")}),
        ("up", 2, {"PreviousPackage": ("up", "1.9", "amd64"), "NewPackage": ("up", "1.10", "amd64")}),
        ("down", 3, {"PreviousPackage": ("down", "1:1", "amd64"), "NewPackage": ("down", "2", "amd64")}),
    ]


def test_the_differences_of_an_update_have_four_keys():
    value = structure(packages.rpm_diff(DIFF, {"new"}))
    assert {key: (one.get_type_string(), len(one.unpack())) for key, one in value.items()} == {
        "upgraded": ("a(us(ss)(ss))", 2), "downgraded": ("a(us(ss)(ss))", 1),
        "added": ("a(usss)", 1), "removed": ("a(usss)", 1),
    }  # fmt: skip
    assert value["added"].unpack() == [(1, "new", "1", "all")]


def test_a_package_has_what_is_read_of_it():
    row = {"name": "a", "version": "1:2-3", "architecture": "amd64", "summary": "x", "archive": "y z"}
    value = structure(packages.offered(row))
    assert {key: one.unpack() for key, one in value.items()} == {
        "key": "a", "name": "a", "epoch": 1, "version": "2-3", "evr": "1:2-3", "arch": "amd64",
        "nevra": "a-1:2-3.amd64", "summary": "x", "reponame": "y z",
    }  # fmt: skip
    assert value["epoch"].get_type_string() == "t"
    assert packages.offered({**row, "group": "summary & name"})["key"] == ("s", "match_group_a")


@pytest.mark.parametrize(
    ("call", "request_", "actions"),
    [
        (calls.upgrade(BOOLEANS), Upgrade(), [UPGRADE]),
        (calls.upgrade({**BOOLEANS, "no-pull-base": True, "download-only": True, "unknown": 1}),
         Upgrade(base=False, deploy=DeployOptions(download_only=True)), [UPGRADE]),
        (update({}, {"no-layering": True, "no-overrides": True}), Reset(layers=True, overrides=True),
         [UPGRADE, PACKAGES, OVERRIDE]),
        (update({"override-remove-packages": ["a"], "install-packages": ["b"]}, KEEP),
         Override(remove=("a",), install=("b",)), [PACKAGES, OVERRIDE]),
        (update({}, {**KEEP, "no-overrides": True}), Override(reset_all=True), [OVERRIDE]),
        (update({}, {}), Upgrade(), [UPGRADE]),
        (update({}, KEEP), Upgrade(base=False), [OVERRIDE]),
        (update({"install-packages": ["a", "b"]}, {**KEEP, "idempotent-layering": True}),
         Install(packages=("a", "b"), idempotent=True), [PACKAGES]),
        (update({"install-packages": ["a"], "uninstall-packages": ["b"]}, {**KEEP, "allow-inactive": True}),
         Install(packages=("a",), uninstall=("b",), allow_inactive=True), [PACKAGES]),
        (update({"uninstall-packages": ["b"]}, KEEP), Uninstall(packages=("b",)), [PACKAGES]),
        (calls.update_deployment({"install-local-packages": [0]}, KEEP, ["/x.deb"]),
         Install(files=(OpenFile(0, "/x.deb"),)), [LOCAL]),
        (calls.update_deployment({"install-local-fileoverride-packages": [0]}, KEEP, ["/x.deb"]), REPLACING,
         [LOCAL, OVERRIDE]),
        (calls.update_deployment({"install-fileoverride-local-packages": [0]}, KEEP, ["/x.deb"]), REPLACING,
         [LOCAL, OVERRIDE]),
        (update({"install-fileoverride-packages": ["a"], "uninstall-packages": ["b"]}, KEEP),
         Install(packages=("a",), uninstall=("b",), replace_files=True), [PACKAGES, OVERRIDE]),
        (calls.deploy("x", {"reboot": True}),
         Deploy(revision="x", deploy=DeployOptions(reboot=True)), ["deploy"]),
        (calls.deploy("x", {"allow-downgrade": False, "skip-branch-check": True}),
         Deploy(revision="x", disallow_downgrade=True, skip_branch_check=True), ["deploy"]),
        (calls.rebase("r:b", {"revision": "1", "skip-purge": True}, []),
         Rebase(refspec="r:b", revision="1", skip_purge=True), ["rebase"]),
        (calls.rebase("r:b", BOOLEANS, []), Rebase(refspec="r:b", disallow_downgrade=True), ["rebase"]),
        (update({"set-refspec": "r:b", "set-revision": "1"}, {}), Rebase(refspec="r:b", revision="1"),
         ["rebase"]),
        (update({"set-revision": "1"}, {}), Deploy(revision="1"), ["deploy"]),
        (calls.rebase("r:b", {}, ["a"]), Rebase(refspec="r:b", install=("a",)), ["rebase", PACKAGES]),
        (update({"set-refspec": "r:b", "install-packages": ["a"], "uninstall-packages": ["b"]}, {}),
         Rebase(refspec="r:b", install=("a",), uninstall=("b",)), ["rebase", PACKAGES]),
        (calls.update_deployment({"set-revision": "1", "install-local-packages": [0]}, {}, ["/x.deb"]),
         Deploy(revision="1", files=(OpenFile(0, "/x.deb"),)), ["deploy", LOCAL]),
        (update({"install-packages": ["a"]}, {}), Upgrade(install=("a",)), [UPGRADE, PACKAGES]),
        (calls.upgrade({"allow-downgrade": True}), Upgrade(allow_downgrade=True), [UPGRADE]),
        (calls.pkg_change({"dry-run": True}, ["a"], []),
         Install(packages=("a",), deploy=DeployOptions(dry_run=True)), [PACKAGES]),
        (calls.kernel_args("BOOT_IMAGE=/x root=1 ostree=/y quiet", ["a b=1"], ["root=2"], ["quiet"],
                           {"append-if-missing": ["b=1", "c"], "delete-if-present": ["d"]}),
         Kargs(whole=("root=2", "a", "b=1", "c")), ["bootconfig"]),
        (calls.kernel_args("x", [], [], [], {"lock-finalization": True}),
         Kargs(whole=("x",), deploy=DeployOptions(lock_finalization=True)), ["bootconfig"]),
        (calls.set_initramfs_state(True, ["-v"], {"reboot": True}),
         Initramfs(enable=True, arguments=("-v",), deploy=DeployOptions(reboot=True)), ["bootconfig"]),
        (calls.set_initramfs_state(False, ["-v"], {}), Initramfs(enable=False), ["bootconfig"]),
        (calls.initramfs_etc(["/etc/a"], ["/etc/b"], untrack_all=True, force_sync=True, options={}),
         InitramfsEtc(track=("/etc/a",), untrack=("/etc/b",), untrack_all=True, force_sync=True),
         ["bootconfig"]),
        (calls.rollback({"reboot": False}), Rollback(), ["rollback"]),
        (calls.clear_rollback_target({}, "x"), Cleanup(rollback=True, stateroot="x"), ["rollback"]),
        (calls.cleanup(["base", "repomd"], "x"), Cleanup(base=True, repomd=True, stateroot="x"), ["cleanup"]),
        (calls.refresh_md({"force": True}), RefreshMd(force=True), ["repo-refresh"]),
        (calls.download_update(), Upgrade(check=True), ["repo-refresh"]),
        (calls.automatic_update({"mode": "check"}, "none"), Upgrade(check=True), [UPGRADE]),
        (calls.automatic_update({}, "check"), AutomaticUpdate(), [UPGRADE]),
        (calls.automatic_update({}, "live"), AutomaticUpdate(), [UPGRADE]),
        (calls.automatic_update({"mode": "stage"}, "none"), AutomaticUpdate(policy=Policy.STAGE), [UPGRADE]),
    ],
)  # fmt: skip
def test_the_request_of_a_call(call: calls.Call, request_: Any, actions: list[str]):
    if hasattr(request_, "bypass_driver") and not getattr(request_, "check", False):
        request_ = replace(request_, bypass_driver=True)  # only rpm-ostree's client asks for a driver
    assert call.request == request_
    assert call.actions == tuple(f"org.projectatomic.rpmostree1.{name}" for name in actions)


def test_a_live_change_needs_an_action_more():
    call = update({"install-packages": ["a"]}, {**KEEP, "apply-live": True, "reboot": True})
    assert call.request == Install(packages=("a",), deploy=DeployOptions(live=LiveOptions(), reboot=True))
    assert call.actions[-1] == "org.debian.aptostree1.apply-live" and call.reboot


def test_nothing_is_done_automatically_if_updates_are_off():
    assert calls.automatic_update({}, "none") is None
    assert calls.automatic_update({"mode": "none"}, "check") is None


def test_a_live_update_of_somebodys_own_needs_more_actions():
    own = calls.automatic_update({"mode": "live"}, "none")
    assert own and {action.rpartition(".")[2] for action in own.actions} == {
        "upgrade", "apply-live", "restart-services",
    }  # fmt: skip


def test_a_base_that_stays_is_told():
    assert "base stays" in update({"install-fileoverride-packages": ["a"]}, {}).note
    assert "base stays" in update({"override-remove-packages": ["a"]}, {}).note
    assert not update({"override-remove-packages": ["a"]}, KEEP).note


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: calls.upgrade({"treefile": "x"}), "treefile is not supported"),
        (lambda: calls.kernel_args("x", [], [], ["y"], {}), "no kernel argument 'y'"),
        (lambda: calls.kernel_args("x", [], [], [], {"append-if-missing": ["a b"]}), "'a b'"),
        (lambda: calls.initramfs_etc([], [], untrack_all=False, force_sync=False, options={}), "is needed"),
        (lambda: calls.set_initramfs_state(True, [], {"reboot": True, "lock-finalization": True}), "exclude"),
        (lambda: calls.upgrade({"register-driver": "x"}), "register-driver is not supported"),
        (lambda: calls.rebase("x", {"register-driver": "x"}, []), "register-driver is not supported"),
        (lambda: update({}, {"register-driver": "x"}), "register-driver is not supported"),
        (lambda: update({"set-revision": ""}, {}), "expected a commit"),
        (lambda: update({"set-revision": "x", "override-remove-packages": ["a"]}, {}), "after the other"),
        (lambda: update({"set-revision": "x"}, {"no-layering": True}), "one after the other"),
        (lambda: update({"set-revision": "x", "install-local-packages": [0]}, {}), "was not passed"),
        (lambda: calls.upgrade({"dry-run": "yes"}), "dry_run: expected true or false"),
        (lambda: calls.upgrade({"cache-only": True, "download-only": True}), "exclude each other"),
        (lambda: update({}, {"lock-finalization": True, "reboot": True}), "exclude each other"),
        (lambda: update({"install-local-packages": [0]}, {}), "was not passed"),
        (lambda: update({"install-local-fileoverride-packages": [0]}, KEEP), "was not passed"),
        (
            lambda: update({"install-fileoverride-packages": ["a"], "install-packages": ["b"]}, KEEP),
            "exclude other changes",
        ),
        (
            lambda: update({"install-fileoverride-packages": ["a"], "set-revision": "x"}, {}),
            "after the other",
        ),
        (lambda: update({"install-fileoverride-packages": ["a"]}, {"no-initramfs": True}), "no-initramfs"),
        (lambda: calls.cleanup(["all"], "x"), "named 'all'"),
        (lambda: calls.automatic_update({"mode": "sometimes"}, "none"), "none of auto"),
    ],
)
def test_what_cannot_be_done_is_refused(call, text: str):
    with pytest.raises(UsageError, match=text):
        call()


def test_the_end_is_a_plain_text():
    assert end_of({"event": "end", "ok": True, "result": {}}) == (True, "")
    failure = {"event": "end", "ok": False, **Refused("no", details=("x",)).to_json()}
    assert end_of(failure) == (False, "no\n  x")
    assert read_event('{"event": "task-b') == {"event": ""}
