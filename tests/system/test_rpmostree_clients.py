"""rpm-ostree's clients with the package for them: what they do is done, and not without an authorization."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import livehost
from tests.system.livehost import NOBODY, Host, program, same
from tests.system.test_rebase import FORCED

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "/var/tmp/compat.deb"
NAME = "org.projectatomic.rpmostree1"
NONE: list[Any] = ["a{sv}", {}]
KEEP: list[Any] = ["a{sv}", {"no-pull-base": ["b", True]}]
RULES = "/etc/polkit-1/rules.d/10-test.rules"
RULE = f"""polkit.addRule(function(action, subject) {{
  if (action.id == "{NAME}.install-uninstall-packages" && subject.user == "nobody")
    return polkit.Result.YES;
}});
"""
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
#: As GNOME Software sends them.
BOOLEANS = (
    "reboot", "allow-downgrade", "cache-only", "download-only", "skip-purge", "no-pull-base", "dry-run",
    "no-overrides",
)  # fmt: skip
INSTALL: list[Any] = ["UpdateDeployment", [["a{sv}", {"install-packages": ["as", ["fx-hello"]]}], KEEP]]
CLEAR: list[Any] = ["ClearRollbackTarget", [NONE]]
REFRESH: list[Any] = ["RefreshMd", [["a{sv}", {"force": ["b", True]}]]]
CHECK: list[Any] = ["AutomaticUpdateTrigger", [["a{sv}", {"mode": ["s", "check"]}]]]
KARGS: list[Any] = [
    "KernelArgs",
    [["s", "root=x quiet"], ["as", ["fx.a=1 fx.b"]], ["as", []], ["as", ["quiet"]], NONE],
]
TRACK: list[Any] = [
    "InitramfsEtc",
    [["as", ["/etc/passwd"]], ["as", []], ["b", False], ["b", False], NONE],
]
#: Methods that make a transaction, with the exact types of their arguments.
CHANGES: list[list[Any]] = [
    ["Upgrade", [["a{sv}", {name: ["b", False] for name in BOOLEANS}]]],
    ["Deploy", [["s", "0" * 64], ["a{sv}", {"reboot": ["b", True]}]]],
    ["Rebase", [["a{sv}", {"reboot": ["b", True], "revision": ["s", "1"]}], ["s", "r:b"], ["as", []]]],
    INSTALL,
    ["UpdateDeployment", [NONE, ["a{sv}", {"no-layering": ["b", True], "no-overrides": ["b", True]}]]],
    ["PkgChange", [NONE, ["as", ["fx-hello"]], ["as", []]]],
    ["Rollback", [["a{sv}", {"reboot": ["b", True]}]]],
    KARGS,
    ["SetInitramfsState", [["b", True], ["as", ["-v"]], NONE]],
    TRACK,
    CLEAR,
    ["Cleanup", [["as", ["base", "repomd", "pending-deploy", "rollback-deploy"]]]],
    REFRESH,
    ["DownloadUpdateRpmDiff", []],
    CHECK,
]


def put_package(host: Host) -> None:
    """Copy the package that these clients need to a machine."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([ROOT / "tools/build-deb", place], check=True, capture_output=True)
        (package,) = Path(place).glob("apt-ostree-rpmostree-compat_*.deb")
        text = base64.b64encode(package.read_bytes()).decode()
    host.run("sh", "-euc", f"base64 --decode >{PACKAGE}", input=text)


def install(host: Host) -> None:
    put_package(host)
    host.ao("install", PACKAGE)


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with livehost.disk_after(install, livehost.prepared_disk()) as made:
        yield made


def client(host: Host, *calls: list[Any], user: tuple[str, ...] = ()) -> dict[str, Any]:
    done = host.run(*user, *program("rpmostree_client.py"), input=json.dumps(calls))
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_a_page_installs_a_package(own: Host):
    assert (
        own.run("rpm-ostree", "status", "--json").stdout == own.run("apt-ostree", "status", "--json").stdout
    )
    said = client(own, INSTALL)
    before = said["objects"][f"/{NAME.replace('.', '/')}/{own.deployments()[0]['osname']}"][f"{NAME}.OS"]
    assert before["BootedDeployment"] == before["DefaultDeployment"] and before["CachedUpdate"] == {}
    ((address, signals),) = said["results"]
    assert address.startswith("unix:path=/run/apt-ostree-rpmostree/")
    kinds = [name for name, _values in signals]
    assert signals[-1] == ["Finished", [True, ""]] and {"TaskBegin", "TaskEnd"} <= set(kinds)
    pending, booted, _previous = own.deployments()
    shown = said["announced"]
    assert shown["DefaultDeployment"]["checksum"] == pending["checksum"]
    assert shown["DefaultDeployment"]["requested-packages"] == pending["requested-packages"]
    assert shown["CachedUpdate"]["deployment"] == pending["id"] and shown["ActiveTransactionPath"] == ""
    said = client(
        own,
        ["GetDeploymentsRpmDiff", [["s", booted["id"]], ["s", pending["id"]]]],
        ["GetCachedUpdateRpmDiff", [["s", ""]]],
        ["Cleanup", [["as", ["pending-deploy"]]]],
        ["Rollback", [NONE]],
        ["UpdateDeployment", [["a{sv}", {"install-packages": ["as", ["no-such-package"]]}], KEEP]],
        ["Rebase", [NONE, ["s", booted["origin"]], ["as", []]]],
        ["Deploy", [["s", booted["base-checksum"]], NONE]],
    )
    diff, cached, cleaned, rolled_back, wrong, rebased, deployed = said["results"]
    assert [row[:2] for row in diff[0]] == [["fx-hello", 0]] and cached[0] == diff[0]
    assert diff[0][0][2]["NewPackage"] == ["fx-hello", "1.0", "all"]
    assert cleaned[1][-1] == ["Finished", [True, ""]] and len(own.deployments()) == 2
    assert rolled_back[1][-1] == ["Finished", [True, ""]]
    assert wrong[1][-1][1][0] is False and "no-such-package" in wrong[1][-1][1][1]
    assert "Old and new refs are equal" in rebased[1][-1][1][1]
    assert deployed[1][-1] == ["Finished", [True, ""]]
    base = {"set-revision": ["s", booted["base-checksum"]], "install-packages": ["as", ["fx-hello"]]}
    ((_address, signals),) = client(own, ["UpdateDeployment", [["a{sv}", base], NONE]])["results"]
    assert signals[-1] == ["Finished", [True, ""]]
    assert "fx-hello" in own.deployments()[0]["requested-packages"]


@pytest.mark.extended
def test_a_client_passes_a_package_that_replaces_files(own: Host):
    own.sh(FORCED)
    file = ["ah", ["/var/tmp/forced.deb"]]
    plain, forced = (
        ["UpdateDeployment", [["a{sv}", {key: file}], KEEP]]
        for key in ("install-local-packages", "install-local-fileoverride-packages")
    )
    refused, replaced = client(own, plain, forced)["results"]
    assert refused[1][-1][1][0] is False and "zgrep" in refused[1][-1][1][1]
    assert replaced[1][-1] == ["Finished", [True, ""]]
    assert own.deployments()[0]["requested-local-fileoverride-packages"] == ["fx-forced=1"]
    own.undeploy()


@pytest.mark.extended
def test_a_client_changes_how_the_system_boots(own: Host):
    kernel = own.json("kargs")["kernel-arguments"]
    plain: list[Any] = ["SetInitramfsState", [["b", False], ["as", []], NONE]]
    shown: list[Any] = ["GetDeploymentBootConfig", [["s", ""], ["b", True]]]
    booted: list[Any] = ["GetDeploymentBootConfig", [["s", "1"], ["b", True]]]
    none: list[Any] = ["GetDeploymentBootConfig", [["s", "9"], ["b", True]]]
    before, changed, tracked, kept, after, old, wrong = client(
        own, shown, KARGS, TRACK, plain, shown, booted, none
    )["results"]
    for _address, signals in (changed, tracked, kept):
        assert signals[-1] == ["Finished", [True, ""]]
    assert before[0]["options"] == old[0]["options"] == " ".join(kernel) and before[0]["staged"] is False
    assert after[0]["options"] == "root=x fx.a=1 fx.b" and after[0]["staged"] is True
    assert wrong.endswith("Code1")
    pending = own.deployments()[0]
    assert pending["initramfs-etc"] == ["/etc/passwd"] and not pending["regenerate-initramfs"]
    own.undeploy()


@pytest.mark.extended
def test_programs_find_what_they_look_for_in_the_output(own: Host):
    """Ansible's modules, with their command lines."""
    options = ("--allow-inactive", "--idempotent", "--unchanged-exit-77")
    queued = 'Changes queued for next boot. Run "systemctl reboot" to start a reboot'
    for verb in ("install", "uninstall"):
        done = own.run("rpm-ostree", verb, *options, "fx-hello")
        assert queued in done.stdout
        done = own.run("rpm-ostree", verb, *options, "fx-hello", check=False)
        assert done.returncode == 77 and queued not in done.stdout
    assert "No upgrade available." in own.run("rpm-ostree", "upgrade").stdout
    own.run(
        *NOBODY,
        "busctl",
        "get-property",
        NAME,
        f"/{NAME.replace('.', '/')}/Sysroot",
        f"{NAME}.Sysroot",
        "Booted",
    )
    pid = own.unit_property("apt-ostreed.service", "MainPID")
    rows = dict(line.split(":", 1) for line in own.sh(f"cat /proc/{pid}/status").splitlines())
    assert int(rows["VmRSS"].split()[0]) < 60_000  # kB


@pytest.mark.extended
def test_updates_and_what_archives_offer(own: Host):
    own.ao("install", "fx-service")
    own.suites("stable", "updates")
    said = client(own, REFRESH, CHECK, ["GetPackages", [["as", ["fx-hello", "none"]]]],
                  ["Search", [["as", ["fx-hello"]]]], ["ListRepos", []],
                  ["WhatProvides", [["as", ["font(x)"]]]])  # fmt: skip
    refreshed, checked, packages, found, archives, provided = said["results"]
    assert refreshed[1][-1] == checked[2][-1] == ["Finished", [True, ""]] and checked[0] is True
    assert [name for name, _values in checked[2]] == ["Finished"]
    update = said["announced"]["CachedUpdate"]
    assert "fx-service" in [row[1] for row in update["rpm-diff"]["upgraded"]]
    ((package,),) = packages
    assert package["key"] == package["name"] == "fx-hello" and package["evr"] == "2.0"
    assert "fx-hello" in [row["name"] for row in found[0]]
    assert package["reponame"] in [row["id"] for row in archives[0]]
    assert provided == [[]]


def test_users_need_an_authorization(own: Host):
    """Not for reading, but for each change, on the bus and on the socket of somebody else's transaction."""
    before = own.look()
    reading = [["ListRepos", []], ["GetPackages", [["as", ["fx-hello"]]]]]
    said = client(own, *CHANGES, *reading, user=NOBODY)
    assert said["results"][: len(CHANGES)] == [DENIED] * len(CHANGES)
    assert all(isinstance(result, list) for result in said["results"][len(CHANGES) :])
    # It waits as long as the client that made it is there: this one is gone at once, but its socket stays.
    call = ("call", NAME, said["sysroot"]["Booted"], f"{NAME}.OS", "Cleanup", "as", "1", "base")
    (address,) = json.loads(own.run("busctl", "--json=short", *call).stdout)["data"]
    done = own.run(*NOBODY, *program("rpmostree_peer.py", address))
    assert set(json.loads(done.stdout)) <= {DENIED, "none"}
    same(before.everything(), own.look().everything())
    denied = [row["verb"] for row in own.json("history") if row["outcome"] == "denied"]
    assert len(denied) >= len(CHANGES) and "access to 'cleanup'" in denied
    own.run("tee", RULES, input=RULE)
    own.sh(f"chmod 644 {RULES}; systemctl restart polkit")
    ((_address, signals),) = client(own, INSTALL, user=NOBODY)["results"]
    assert signals[-1] == ["Finished", [True, ""]]
    assert own.deployments()[0]["requested-packages"] == ["fx-hello"]
    (denied,) = client(own, CLEAR, user=NOBODY)["results"]
    assert denied == DENIED
    own.check_clean()


def test_the_package_is_installed_live(own: Host):
    own.run(*NOBODY, "apt-ostree", "history")  # starts the service
    own.ao("apply-live", "--reset")
    own.ao("uninstall", "apt-ostree-rpmostree-compat")
    own.reboot()
    assert not own.succeeds(f"busctl status {NAME}")
    own.run(*NOBODY, "apt-ostree", "history")
    own.ao("install", "-A", "-y", "--restart-services", PACKAGE)
    own.sh(f"busctl --timeout=10 call {NAME} /{NAME.replace('.', '/')}/Sysroot {NAME}.Sysroot Reload")
    own.run("rpm-ostree", "uninstall", "-A", "-y", "--restart-services", "apt-ostree-rpmostree-compat")
    assert not own.succeeds(f"busctl --timeout=10 status {NAME}")
    assert own.failed_units() == []
