"""The typed interfaces of the service: what they do and tell, and who may call them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.livehost import NOBODY, Host, program, same
from tests.system.test_override import POOL
from tests.system.test_transactions import CALL, allowed

EMPTY: list[Any] = ["a{sv}", {}]
LIVE: list[Any] = ["a{sv}", {"apply-live": ["b", True]}]


def modifiers(key: str, *packages: str) -> list[Any]:
    return ["a{sv}", {key: ["as", packages]}]


def call(host: Host, *calls: list[Any]) -> tuple[list[Any], list[Any]]:
    """Call methods as nobody; return the results, and all signals: object, name, values."""
    done = host.run(*NOBODY, *program("typed_client.py"), input=json.dumps(calls))
    said = json.loads(done.stdout)
    return said["results"], said["signals"]


def properties(host: Host, path: str, interface: str) -> dict[str, tuple[str, Any]]:
    """Return type and value of all properties."""
    get = ("org.freedesktop.DBus.Properties", "GetAll", "s", f"org.debian.aptostree1.{interface}")
    done = host.run(*NOBODY, *CALL, f"/org/debian/aptostree1/{path}", *get)
    (values,) = json.loads(done.stdout)["data"]
    return {name: (value["type"], value["data"]) for name, value in values.items()}


def test_a_live_change_is_made_and_told(own: Host):
    with allowed(own):
        results, signals = call(
            own,
            ["OS", "UpdateDeployment", [modifiers("install-packages", "fx-hello"), LIVE]],
            ["Overlays", "Edit", [["s", "one"], ["a{sv}", {"create": ["b", True]}]]],
            ["Overlays", "List", []],
            ["History", "List", [["u", 1]]],
        )
    assert own.sh("fx-hello") == "hello 1.0\n"
    assert [overlay["name"] for overlay in results[2][0]] == ["one"]
    (entry,) = results[3][0]
    assert (entry["number"], entry["caller"], entry["outcome"]) == (2, "nobody", "done")
    assert "plan" not in entry
    names = {name for _object, name, _values in signals}
    assert {"Event", "TaskBegin", "TaskEnd", "Message", "Finished", "Staged", "PropertiesChanged"} <= names
    assert "ForeignChange" not in names
    ended = [values[:3] for place, name, values in signals if (place, name) == ("History", "Ended")]
    assert ended == [[1, "install -A", "live"], [2, "usroverlay --name=one --create", "done"]]
    finished = [values for _object, name, values in signals if name == "Finished"]
    assert finished == [[True, "", ""], [True, "", ""]]
    changed = [values[1] for place, name, values in signals if (place, name) == ("Live", "PropertiesChanged")]
    assert changed[-1]["Generation"] == 1
    active = [v[1] for place, name, v in signals if (place, name) == ("Sysroot", "PropertiesChanged")]
    titles = [one["ActiveTransaction"][0] for one in active if "ActiveTransaction" in one]
    assert titles[:2] == ["install -A", ""]
    with allowed(own):
        results, _signals = call(
            own,
            ["Live", "Rollback", [["a{sv}", {"generation": ["x", 0]}]]],
            ["Live", "Apply", [["a{sv}", {"reset": ["b", True]}]]],
            ["OS", "Cleanup", [["as", ["pending-deploy"]]]],
            ["OS", "Cleanup", [["as", ["x"]]]],
            ["OS", "Upgrade", [["a{sv}", {"reboot": ["b", True]}]]],
        )
    assert results[3:] == ["org.debian.aptostree1.Error.Usage"] * 2
    assert not own.exists("/usr/bin/fx-hello") and len(own.deployments()) == 1


@pytest.mark.extended
def test_packages_change_with_the_base(own: Host):
    changes = {
        "no-pull-base": ["b", True],
        "install-packages": ["as", ["fx-recommends"]],
        "install-local-packages": ["ah", [f"{POOL}/fx-user_1.0_all.deb"]],
        "recommends": ["b", False],
    }
    with allowed(own):
        results, _signals = call(own, ["OS", "Upgrade", [["a{sv}", changes]]])
    assert len(results) == 1
    entry = own.deployments()[0]
    requested = (entry["requested-packages"], entry["requested-local-packages"])
    assert requested == (["fx-recommends"], ["fx-user=1.0"])
    status = own.sh(f"ostree cat {entry['checksum']} /usr/lib/sysimage/dpkg/status")
    assert "Package: fx-user\n" in status and "Package: fx-conf\n" not in status  # which is recommended
    wrong = {"recommends": ["b", False]}
    with allowed(own):
        results, _signals = call(own, ["OS", "Upgrade", [["a{sv}", wrong]]])
    assert results == ["org.debian.aptostree1.Error.Usage"]


@pytest.mark.extended
def test_how_the_system_boots_is_changed(own: Host):
    locked = ["a{sv}", {"lock-finalization": ["b", True]}]
    with allowed(own):
        results, _signals = call(
            own,
            ["OS", "KernelArgs", [["s", "not=seen"], ["as", ["fx.a"]], ["as", []], ["as", []], EMPTY]],
            ["OS", "KernelArgs", [["s", ""], ["as", ["fx.a"]], ["as", []], ["as", []], EMPTY]],
            ["OS", "InitramfsEtc", [["as", ["/etc/passwd"]], ["as", []], ["b", False], ["b", False], locked]],
        )
    assert len(results) == 3
    assert own.json("kargs")["kernel-arguments"][-1] == "fx.a"
    entry = own.deployments()[0]
    assert entry["initramfs-etc"] == ["/etc/passwd"] and entry["finalization-locked"]
    with allowed(own):
        results, _signals = call(
            own,
            ["OS", "FinalizeDeployment", [["a{sv}", {"checksum": ["s", entry["checksum"]]}]]],
            ["OS", "FinalizeDeployment", [EMPTY]],
        )
    assert results[1] == "org.debian.aptostree1.Error.Usage"
    assert not own.deployments()[0].get("finalization-locked")
    with allowed(own):
        plain = ["OS", "SetInitramfsState", [["b", False], ["as", []], EMPTY]]
        call(own, ["OS", "SetInitramfsState", [["b", True], ["as", ["--verbose"]], EMPTY]])
        assert own.deployments()[0]["initramfs-args"] == ["--verbose"]
        call(own, plain)
    assert not own.deployments()[0]["regenerate-initramfs"]


@pytest.mark.extended
def test_another_program_that_covers_usr_is_told(own: Host):
    done = own.run(*program("foreign_change.py"))
    assert done.stdout.split() == ["[", '"foreign"', "]", "uncovered"]


def test_properties_and_refusals(own: Host):
    own.run(*NOBODY, "apt-ostree", "reload")
    own.ao("install", "fx-hello")
    before = own.look()
    sysroot = properties(own, "Sysroot", "Sysroot")
    (path,) = {sysroot["Booted"][1]}
    system, live = (
        properties(own, path.removeprefix("/org/debian/aptostree1/"), "OS"),
        properties(own, "Live", "Live"),
    )
    assert {name: kind for name, (kind, _value) in {**sysroot, **system, **live}.items()} == {
        "ActiveTransaction": "(sss)", "Booted": "o", "Deployments": "aa{sv}", "Path": "s",
        "BootedDeployment": "a{sv}", "DefaultDeployment": "a{sv}", "Name": "s", "RollbackDeployment": "a{sv}",
        "Commit": "s", "ConfirmBy": "d", "FailedUnits": "as", "Generation": "t", "Overlays": "as",
    }  # fmt: skip
    pending, booted = own.deployments()
    for row, of_bus in zip((pending, booted), sysroot["Deployments"][1], strict=True):
        plain = {key: value["data"] for key, value in of_bus.items()}
        assert plain["checksum"] == row["checksum"] and plain["packages"] == row["packages"]
        assert of_bus["timestamp"]["type"] == "t" and of_bus["serial"]["type"] == "i"
    assert system["DefaultDeployment"][1]["staged"]["data"] and not system["RollbackDeployment"][1]
    calls = [
        ["OS", "Upgrade", [EMPTY]],
        ["OS", "UpdateDeployment", [modifiers("install-packages", "fx-conf"), EMPTY]],
        ["OS", "UpdateDeployment", [modifiers("override-remove-packages", "adduser"), EMPTY]],
        ["OS", "Deploy", [["s", "13"], EMPTY]],
        ["OS", "Rebase", [["s", "other"], EMPTY]],
        ["OS", "KernelArgs", [["s", ""], ["as", ["x"]], ["as", []], ["as", []], EMPTY]],
        ["OS", "SetInitramfsState", [["b", True], ["as", []], EMPTY]],
        ["OS", "InitramfsEtc", [["as", ["/etc/passwd"]], ["as", []], ["b", False], ["b", False], EMPTY]],
        ["OS", "FinalizeDeployment", [["a{sv}", {"allow-missing-checksum": ["b", True]}]]],
        ["OS", "Rollback", [EMPTY]],
        ["OS", "Cleanup", [["as", ["base"]]]],
        ["OS", "RefreshMd", [EMPTY]],
        ["Live", "Apply", [EMPTY]],
        ["Live", "Rollback", [EMPTY]],
        ["Live", "Confirm", []],
        ["Overlays", "Edit", [["s", "one"], ["a{sv}", {"create": ["b", True]}]]],
    ]
    results, _signals = call(own, *calls)
    assert results == ["org.debian.aptostree1.Error.NotAuthorized"] * len(calls)
    same(before.everything(), own.look().everything())
