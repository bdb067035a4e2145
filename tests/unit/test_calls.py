"""The typed calls of the service: the requests that they make, and JSON as values of D-Bus."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from dasbus.typing import get_native
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.daemon import variants
from apt_ostree.errors import UsageError
from apt_ostree.model import bus as names
from apt_ostree.model import calls
from apt_ostree.model.kargs import Changes
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.requests.archives import RefreshMd
from apt_ostree.model.requests.deployments import (
    Cleanup,
    Deploy,
    FinalizeDeployment,
    Initramfs,
    InitramfsEtc,
    Kargs,
    Rebase,
    Rollback,
)
from apt_ostree.model.requests.live import ApplyLive, RollbackLive
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.overlays import EditOverlay
from apt_ostree.model.requests.packages import Install, Override, Reset, Uninstall, Upgrade
from apt_ostree.model.selection import Selection

update = partial(calls.update_deployment, files=())
LIVE = DeployOptions(live=LiveOptions(RestartPolicy.NEEDED, 60.0))
AS_LIVE = {"apply-live": True, "restart-services": "needed", "confirm-within": 60.0}


@pytest.mark.parametrize(
    ("made", "request_"),
    [
        (calls.upgrade({}), Upgrade()),
        (calls.upgrade({"no-pull-base": True, "check": True}), Upgrade(base=False, check=True)),
        (calls.upgrade({"no-packages": True, "dry-run": True}),
         Upgrade(packages=False, deploy=DeployOptions(dry_run=True))),
        (update({"install-packages": ["a", "b=1"]}, AS_LIVE), Install(packages=("a", "b=1"), deploy=LIVE)),
        (update({"install-packages": ["a"], "uninstall-packages": ["b"]}, {"allow-inactive": True}),
         Install(packages=("a",), uninstall=("b",), allow_inactive=True)),
        (update({"uninstall-packages": ["b"]}, {"idempotent-layering": True}),
         Uninstall(packages=("b",), idempotent=True)),
        (update({"no-layering": True}, {}), Uninstall(everything=True)),
        (update({"no-layering": True, "install-packages": ["a"]}, {}),
         Uninstall(everything=True, install=("a",))),
        (calls.update_deployment({"install-local-packages": [0]}, {}, ["/x.deb"]),
         Install(files=(OpenFile(0, "/x.deb"),))),
        (calls.update_deployment(
            {"install-local-fileoverride-packages": [0], "install-fileoverride-packages": ["a"],
             "uninstall-packages": ["b"]}, {"recommends": False}, ["/x.deb"]),
         Install(packages=("a",), files=(OpenFile(0, "/x.deb"),), uninstall=("b",), recommends=False,
                 replace_files=True)),
        (update({"no-initramfs": True, "no-overrides": True, "install-packages": ["a"]},
                {"recommends": True}),
         Reset(overrides=True, initramfs=True, install=("a",), recommends=True)),
        (calls.upgrade({"install-local-packages": [0], "uninstall-packages": ["b"]}, ["/x.deb"]),
         Upgrade(files=(OpenFile(0, "/x.deb"),), uninstall=("b",))),
        (calls.upgrade({"allow-failed": True, "override-policy": "why", **AS_LIVE}),
         Upgrade(deploy=replace(LIVE, allow_failed=True, override_policy="why",
                                live=LiveOptions(RestartPolicy.NEEDED, 60.0, allow_failed=True)))),
        (calls.deploy("13.2", {"install-packages": ["a"], "recommends": False}),
         Deploy(revision="13.2", install=("a",), recommends=False)),
        (calls.rebase("a:b", {"install-packages": ["a"], "install-local-packages": [0]}, ["/x.deb"]),
         Rebase(refspec="a:b", install=("a",), files=(OpenFile(0, "/x.deb"),))),
        (calls.deploy("13.2", {"skip-branch-check": True}), Deploy(revision="13.2", skip_branch_check=True)),
        (calls.rebase("a:b", {"revision": "13.2", "skip-purge": True}),
         Rebase(refspec="a:b", revision="13.2", skip_purge=True)),
        (update({"override-remove-packages": ["a"], "install-packages": ["b"]}, {}),
         Override(remove=("a",), install=("b",))),
        (calls.update_deployment(
            {"override-remove-packages": ["a"], "install-local-packages": [0]}, {}, ["/x.deb"]),
         Override(remove=("a",), install_files=(OpenFile(0, "/x.deb"),))),
        (update({"no-overrides": True}, {"dry-run": True}),
         Override(reset_all=True, deploy=DeployOptions(dry_run=True))),
        (calls.kernel_args("root=1 ostree=/x", ["a b=1"], ["root=2"], [], {"delete-if-present": ["d"]}),
         Kargs(changes=Changes(append=("a", "b=1"), replace=("root=2",), delete_if_present=("d",)),
               seen=("root=1",))),
        (calls.kernel_args("", [], [], ["quiet"], {"lock-finalization": True, "dry-run": True}),
         Kargs(changes=Changes(delete=("quiet",)),
               deploy=DeployOptions(dry_run=True, lock_finalization=True))),
        (calls.set_initramfs_state(True, ["-v"], {"allow-failed": True}),
         Initramfs(enable=True, arguments=("-v",), deploy=DeployOptions(allow_failed=True))),
        (calls.initramfs_etc(["/etc/a"], ["/etc/b"], untrack_all=False, force_sync=True, options={}),
         InitramfsEtc(track=("/etc/a",), untrack=("/etc/b",), force_sync=True)),
        (calls.finalize({"checksum": "c" * 64, "allow-unlocked": True}),
         FinalizeDeployment(checksum="c" * 64, allow_unlocked=True)),
        (calls.rollback({"dry-run": True}), Rollback(dry_run=True)),
        (calls.rollback({"allow-failed": True}), Rollback(allow_failed=True)),
        (calls.apply_live({"excluded-packages": ["a"], "security": True, "override-policy": "why"}),
         ApplyLive(selection=Selection((), ("a",), True), live=LiveOptions(override_policy="why"))),
        (calls.cleanup(["base", "pending-deploy"], "debian"),
         Cleanup(base=True, pending=True, stateroot="debian")),
        (calls.refresh_md({"force": True}), RefreshMd(force=True)),
        (calls.apply_live({"packages": ["a"], "dry-run": True}),
         ApplyLive(selection=Selection(packages=("a",)), dry_run=True)),
        (calls.apply_live({"reset": True, "force": True}),
         ApplyLive(reset=True, live=LiveOptions(force=True))),
        (calls.rollback_live({"generation": 3}), RollbackLive(generation=3)),
        (calls.edit_overlay("x", {"create": True, "enable": False}),
         EditOverlay(name="x", create=True, enable=False)),
    ],
)  # fmt: skip
def test_the_request_of_a_call(made: object, request_: object):
    assert made == request_


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: calls.upgrade({"reboot": True}), "unknown field 'reboot'"),
        (lambda: calls.upgrade({"dry-run": 1}), "dry_run: expected true or false"),
        (lambda: calls.upgrade({"force": True}), "need apply-live"),
        (lambda: calls.cleanup(["all"], "debian"), "named 'all'"),
        (lambda: calls.kernel_args("", ['a "b'], ["x y"], [], {"append-if-missing": ["a b"]}), "'a b'"),
        (lambda: calls.set_initramfs_state(False, ["-v"], {}), "that the machine makes"),
        (lambda: calls.initramfs_etc([], [], untrack_all=False, force_sync=False, options={}), "is needed"),
        (lambda: calls.finalize({}), "either a checksum or"),
        (lambda: calls.finalize({"allow-missing-checksum": True, "reboot": True}), "unknown field 'reboot'"),
        (lambda: update({"install-local-packages": [0]}, {}), "was not passed"),
        (lambda: update({"no-layering": True, "uninstall-packages": ["a"]}, {}), "exclude each other"),
        (
            lambda: update({"no-layering": True, "no-overrides": True, "override-reset-packages": ["a"]}, {}),
            "exclude overrides",
        ),
        (
            lambda: update({"install-fileoverride-packages": ["a"], "install-packages": ["b"]}, {}),
            "exclude other changes",
        ),
        (lambda: update({"uninstall-packages": ["a"]}, {"recommends": True}), "packages to install"),
        (lambda: calls.upgrade({"recommends": False}), "packages to install"),
        (lambda: calls.rebase("x", {"install-local-packages": [0]}), "was not passed"),
        (lambda: calls.upgrade({"install-local-packages": [0, 0]}, ["/x.deb"]), "was not passed"),
        (lambda: calls.apply_live({"restart-services": "some"}), "one of none, needed, all"),
        (lambda: calls.apply_live({"confirm-within": -1.0}), "expected a time above 0"),
        (lambda: calls.upgrade({"apply-live": True, "confirm-within": 0.0}), "expected a time above 0"),
        (lambda: calls.rollback_live({"generation": "1"}), "expected a whole number"),
    ],
)
def test_wrong_options(call, text: str):
    with pytest.raises(UsageError, match=text):
        call()


def test_options_of_the_transaction_are_separate():
    assert calls.of_transaction({"ask": True, "dry-run": True}) == ({"ask": True}, {"dry-run": True})


def test_an_object_of_json():
    value = variants.dictionary(
        {"timestamp": 5, "number": 5, "large": 2**63, "x": None, "names": [], "added": [], "on": True}
    )
    assert {key: one.get_type_string() for key, one in value.items()} == {
        "timestamp": "t", "number": "x", "large": "t", "names": "as", "added": "aa{sv}", "on": "b",
    }  # fmt: skip


_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))
_NUMBERS = st.integers(-(2**63), 2**64 - 1)
_PLAIN = st.booleans() | _NUMBERS | _TEXT | st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    _PLAIN, lambda inner: st.lists(inner, min_size=1) | st.dictionaries(_TEXT, inner), max_leaves=20
)


@given(st.dictionaries(_TEXT.filter(lambda key: key not in variants._NUMBERS), _JSON))
def test_any_object_passes_as_it_is(value: dict[str, Any]):
    assert json.dumps(get_native(variants.dictionary(value))) == json.dumps(value)


@pytest.mark.parametrize(
    ("name", "path"),
    [("debian", "debian"), ("my-os/2", "my_os_2"), ("a_b", "a_b"), ("ü.x", "_C3_BC_2Ex")],
)
def test_the_object_of_a_stateroot(name: str, path: str):
    assert names.path_of_stateroot(name) == f"/org/debian/aptostree1/os/{path}"
