"""The service as rpm-ostree's clients meet it: on a bus of the test's own, in their order of calls."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gi.repository import Gio, GLib

from apt_ostree.model import bus as own_names
from apt_ostree.model.rpmostree import names

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = """<busconfig><type>session</type><listen>unix:path={}/bus</listen>
<policy context="default">
  <allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
</policy></busconfig>
"""
BUSY = "org.gtk.GDBus.UnmappedGError.Quark._g_2dio_2derror_2dquark.Code26"
NONE = GLib.Variant("a{sv}", {})
OS = f"{names.PATH}/debian"
UNCHANGED = {"origin": "x", "timestamp": 5, "new_base": True, "gpg_enabled": False, "layered": []}
CHANGED = "PropertiesChanged"


def deployment(number: int, **changes: Any) -> dict[str, Any]:
    checksum = str(number) * 64
    return {
        "id": f"debian-{checksum}.0", "osname": "debian", "checksum": checksum, "serial": 0, "booted": False,
        "staged": False, "pinned": False, "unlocked": "none", "origin": "r:debian/13/amd64/x",
        "version": None, "timestamp": 1_700_000_000, "gpg-enabled": False, "base-commit-meta": {},
        "packages": [], "requested-packages": [], "requested-local-packages": [], **changes,
    }  # fmt: skip


def wait(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Run the main loop until something is true; return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        GLib.MainContext.default().iteration(may_block=False)
        time.sleep(0.005)
    return found


class Service:
    """The service, and a client of it."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self.place = place
        self._environment = environment
        flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
        self._flags = flags
        self.bus = self.connect()
        self.heard: list[tuple[str, str, Any]] = []
        self.bus.signal_subscribe(None, None, None, None, None, Gio.DBusSignalFlags.NONE, self._hear)
        wait(lambda: self.has_owner("org.freedesktop.systemd1"))
        self.process = self.run("tests.unit.rpmostree_service", str(place))
        wait(lambda: self.has_owner("org.debian.aptostree1"))

    def run(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", module, *arguments], env=self._environment, cwd=ROOT)

    def connect(self) -> Any:
        address = self._environment["DBUS_SYSTEM_BUS_ADDRESS"]
        return Gio.DBusConnection.new_for_address_sync(address, self._flags, None, None)

    def _hear(self, *signal: Any) -> None:
        _bus, _sender, path, _interface, name, values = signal
        self.heard.append((path, name, values.unpack()))

    def has_owner(self, name: str) -> bool:
        driver = ("org.freedesktop.DBus", "/", "org.freedesktop.DBus")
        value = GLib.Variant("(s)", (name,))
        answer = self.bus.call_sync(*driver, "NameHasOwner", value, None, Gio.DBusCallFlags.NONE, -1)
        return bool(answer.unpack()[0])

    def call(self, path: str, interface: str, method: str, *arguments: Any, bus: Any = None) -> Any:
        """Call a method; return its values. It fails if an error is the answer."""
        values = GLib.Variant.new_tuple(*arguments)
        where = (names.NAME, path, interface, method, values, None, Gio.DBusCallFlags.NONE, 10_000)
        answer = (bus or self.bus).call_sync(*where)
        return answer.unpack() if answer.get_type_string() != "()" else ()

    def sysroot(self, method: str, *arguments: Any) -> Any:
        return self.call(names.SYSROOT_PATH, names.SYSROOT, method, *arguments)

    def os(self, method: str, *arguments: Any, bus: Any = None) -> Any:
        return self.call(OS, names.OS, method, *arguments, bus=bus)

    def error(self, act: Callable[[], Any]) -> str:
        """Return the name of the error that is the answer."""
        with pytest.raises(GLib.Error) as caught:
            act()
        return str(Gio.DBusError.get_remote_error(caught.value))

    def properties(self, path: str, interface: str) -> dict[str, Any]:
        (found,) = self.call(path, "org.freedesktop.DBus.Properties", "GetAll", GLib.Variant("s", interface))
        return dict(found)

    def next_worker(self, function: str) -> None:
        (self.place / "function").write_text(function)


class Follower:
    """A client of a transaction's socket."""

    def __init__(self, address: str) -> None:
        client = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
        self.connection = Gio.DBusConnection.new_for_address_sync(address, client, None, None)
        self.heard: list[tuple[str, Any]] = []
        self.connection.signal_subscribe(
            None, names.TRANSACTION, None, "/", None, Gio.DBusSignalFlags.NONE, self._hear
        )

    def _hear(self, *signal: Any) -> None:
        self.heard.append((signal[4], signal[5].unpack()))

    def call(self, method: str) -> Any:
        where = (None, "/", names.TRANSACTION, method, None, None, Gio.DBusCallFlags.NONE, 10_000)
        return self.connection.call_sync(*where).unpack()

    def properties(self) -> dict[str, Any]:
        value = GLib.Variant("(s)", (names.TRANSACTION,))
        where = (None, "/", "org.freedesktop.DBus.Properties", "GetAll", value)
        answer = self.connection.call_sync(*where, None, Gio.DBusCallFlags.NONE, 10_000)
        return dict(answer.unpack()[0])

    def end(self) -> Any:
        """Wait for the end; return success and text."""
        wait(lambda: "Finished" in [name for name, _values in self.heard])
        return self.heard[-1][1]

    @property
    def names(self) -> list[str]:
        return [name for name, _values in self.heard]


@contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture
def service() -> Iterator[Service]:
    if os.geteuid() != 0:
        pytest.skip("whoever is not root needs polkit")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o755)
        (place / "bus.conf").write_text(CONFIGURATION.format(place))
        (place / "stateroots/debian").mkdir(parents=True)
        (place / "sockets").mkdir()
        rows = [deployment(2, booted=True, index=0), deployment(1, version="1", pinned=True, index=1)]
        (place / "status.json").write_text(json.dumps({"deployments": rows}))
        (place / "history.json").write_text("[]")
        (place / "available-update.json").write_text("null")
        environment = os.environ | {
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={place}/bus", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1", "APT_OSTREE_TEST_PLACE": str(place / "place"),
        }  # fmt: skip
        bus = ["dbus-daemon", f"--config-file={place}/bus.conf", "--nofork"]
        stack.enter_context(running(subprocess.Popen(bus)))
        wait(lambda: _answers(place / "bus"))
        systemd = [sys.executable, "-m", "tests.unit.fake_systemd", str(place / "function")]
        stack.enter_context(running(subprocess.Popen(systemd, env=environment, cwd=ROOT)))
        found = Service(place, environment)
        stack.enter_context(running(found.process))
        found.next_worker("tell")
        yield found


def test_what_a_page_reads_first(service: Service):
    """In cockpit's order: introspection, properties, registration, all objects."""
    assert service.has_owner(names.NAME)
    (xml,) = service.call(names.PATH, "org.freedesktop.DBus.Introspectable", "Introspect")
    assert names.OBJECT_MANAGER in xml and '<node name="debian"/>' in xml
    sysroot = service.properties(names.SYSROOT_PATH, names.SYSROOT)
    assert sysroot["Booted"] == OS and len(sysroot["Deployments"]) == 2
    assert (sysroot["ActiveTransaction"], sysroot["ActiveTransactionPath"]) == (("", "", ""), "")
    service.sysroot("RegisterClient", GLib.Variant("a{sv}", {"id": GLib.Variant("s", "page")}))
    (objects,) = service.call(names.PATH, names.OBJECT_MANAGER, "GetManagedObjects")
    assert objects[names.SYSROOT_PATH][names.SYSROOT] == sysroot
    shown = objects[OS][names.OS]
    assert shown == service.properties(OS, names.OS)
    assert shown["Name"] == "debian" and shown["CachedUpdate"] == {}
    assert shown["BootedDeployment"]["checksum"] == "2" * 64 and "version" not in shown["BootedDeployment"]
    assert shown["RollbackDeployment"]["version"] == "1"
    service.sysroot("ReloadConfig")
    assert service.sysroot("GetOS", GLib.Variant("s", "")) == (OS,)
    assert service.error(lambda: service.sysroot("GetOS", GLib.Variant("s", "x"))).endswith("Code1")


def test_how_a_deployment_boots(service: Service):
    def found(index: str, *, pending: bool) -> Any:
        arguments = (GLib.Variant("s", index), GLib.Variant("b", pending))
        return service.os("GetDeploymentBootConfig", *arguments)[0]

    (service.place / "kernel-arguments.json").write_text('["root=x", "quiet"]')
    shown = {"options": "root=x quiet", "staged": False}
    assert found("", pending=True) == found("", pending=False) == found("0", pending=True) == shown
    assert found("1", pending=False) == {**shown, "version": "1"}
    assert service.error(lambda: found("2", pending=True)).endswith("Code1")


def test_automatic_updates_follow_the_settings(service: Service):
    def policy() -> str:
        return str(service.properties(names.SYSROOT_PATH, names.SYSROOT)["AutomaticUpdatePolicy"])

    assert policy() == "none"
    (service.place / "settings").mkdir()
    settings = service.place / "settings/apt-ostree.conf"
    settings.write_text("[Daemon]\nAutomaticUpdatePolicy=stage\n")
    assert policy() == "stage"
    enabled, address = service.os("AutomaticUpdateTrigger", NONE)
    assert enabled and Follower(address).properties()["Title"] == "upgrade --trigger-automatic-update-policy"
    settings.write_text("a mistake\n")
    assert policy() == "none"


def test_a_transaction_is_followed(service: Service):
    (address,) = service.os("Rollback", NONE)
    assert not list((service.place / "run").glob("*/*"))  # nothing before it is started
    assert service.properties(names.SYSROOT_PATH, names.SYSROOT)["ActiveTransactionPath"] == ""
    follower = Follower(address)
    assert follower.call("Start") == (True,)
    assert follower.end() == (True, "")
    assert follower.heard[0] == ("TaskBegin", ("one",))
    assert follower.heard[1] == ("PercentProgress", ("one", 50))
    assert follower.names[2:] == ["ProgressEnd", "TaskEnd", "Message", "Finished"]
    wait(follower.connection.is_closed)

    def paths() -> list[str]:
        told = [v[1] for path, name, v in service.heard if (path, name) == (names.SYSROOT_PATH, CHANGED)]
        return [one["ActiveTransactionPath"] for one in told if "ActiveTransactionPath" in one]

    wait(lambda: "" in paths())
    assert list(dict.fromkeys(paths())) == [address, ""]  # it may be told twice
    late = Follower(address)
    assert late.call("Start") == (False,) and late.end() == (True, "")
    assert not (service.place / "started").exists()


def test_others_wait_join_or_attach(service: Service):
    service.next_worker("work")
    (address,) = service.os("Rollback", NONE)
    assert service.os("Rollback", NONE) == (address,)
    first, second = Follower(address), Follower(address)
    assert first.call("Start") == (True,)
    wait(lambda: "Message" in first.names)
    assert second.call("Start") == (False,)
    assert service.properties(names.SYSROOT_PATH, names.SYSROOT)["ActiveTransaction"][0] == "Rollback"
    assert service.os("Rollback", NONE) == (address,)
    assert service.error(lambda: service.os("Upgrade", NONE)) == BUSY
    second.call("Cancel")
    assert first.end()[0] is False and "cancelled" in second.end()[1]
    assert (service.place / "place").read_text() == "put back"


@pytest.mark.parametrize("key", ["install-local-packages", "install-local-fileoverride-packages"])
def test_a_package_is_passed_as_a_file(service: Service, key: str):
    package = service.place / "x.deb"
    package.touch()
    passed = Gio.UnixFDList.new()
    with package.open() as file:
        index = passed.append(file.fileno())

    def modifiers(number: int) -> Any:
        return GLib.Variant("a{sv}", {key: GLib.Variant("ah", [number])})

    assert service.error(lambda: service.os("UpdateDeployment", modifiers(0), NONE)).endswith("Code0")
    keep = GLib.Variant("a{sv}", {"no-pull-base": GLib.Variant("b", True)})
    values = GLib.Variant.new_tuple(modifiers(index), keep)
    where = (names.NAME, OS, names.OS, "UpdateDeployment", values, None, Gio.DBusCallFlags.NONE, 10_000)
    answer, _files = service.bus.call_with_unix_fd_list_sync(*where, passed, None)
    follower = Follower(answer.unpack()[0])
    assert follower.properties()["Title"] == "install"
    follower.call("Start")
    assert follower.end() == (True, "")


def test_a_reboot_follows_the_end(service: Service):
    (address,) = service.os("Rollback", GLib.Variant("a{sv}", {"reboot": GLib.Variant("b", True)}))
    follower = Follower(address)
    follower.call("Start")
    assert follower.end() == (True, "") and not (service.place / "started").exists()
    started = service.place / "started"
    assert wait(lambda: started.exists() and started.read_text()) == "reboot.target"


def test_without_its_client_a_transaction_is_dropped(service: Service):
    other = service.connect()
    (address,) = service.os("Rollback", NONE, bus=other)
    follower = Follower(address)
    assert follower.properties()["Title"] == "rollback"
    other.close_sync(None)
    assert follower.end() == (False, "the transaction was not started in time")
    late = Follower(address)
    assert late.call("Start") == (False,) and late.end()[0] is False


def test_a_transaction_of_another_interface_can_be_followed(service: Service):
    service.next_worker("work")
    arguments = (GLib.Variant("s", "rollback"), GLib.Variant("s", "{}"), GLib.Variant("ah", []), NONE)
    path = "/org/debian/aptostree1/transactions"
    service.call(path, "org.debian.aptostree1.Transactions", "Start", *arguments)
    address = wait(lambda: service.properties(names.SYSROOT_PATH, names.SYSROOT)["ActiveTransactionPath"])
    follower = Follower(address)
    assert follower.call("Start") == (False,)
    service.process.terminate()  # while it goes on
    success, text = follower.end()
    assert not success and "the transaction goes on" in text
    service.process.wait(10)
    assert not list((service.place / "sockets").iterdir())


def test_the_clients_of_a_transaction_are_counted(service: Service):
    (address,) = service.os("Rollback", NONE)
    followers = [Follower(address) for _ in range(40)]
    followers[0].properties()
    wait(lambda: sum(one.connection.is_closed() for one in followers) == 8)
    assert [one.connection.is_closed() for one in followers[:32]] == [False] * 32
    assert followers[0].call("Start") == (True,) and followers[31].end() == (True, "")


def test_a_service_that_was_killed_takes_its_transaction_up_again(service: Service):
    service.next_worker("work")
    (address,) = service.os("Rollback", NONE)
    Follower(address).call("Start")
    wait((service.place / "place").exists)
    service.process.kill()
    service.process.wait(10)
    wait(lambda: not service.has_owner(names.NAME))
    service.heard.clear()
    with running(service.run("tests.unit.rpmostree_service", str(service.place))):
        wait(lambda: [v for path, name, v in service.heard if (path, name) == (OS, CHANGED)])
        address = service.properties(names.SYSROOT_PATH, names.SYSROOT)["ActiveTransactionPath"]
        follower = Follower(address)
        assert follower.call("Start") == (False,)
        follower.call("Cancel")
        assert follower.end()[0] is False
    assert (service.place / "place").read_text() == "put back"


def test_another_user_can_only_look(service: Service):
    """On the socket; the bus asks polkit, which is not there."""
    (address,) = service.os("Rollback", NONE)
    script = f"""
from gi.repository import Gio
client = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
c = Gio.DBusConnection.new_for_address_sync({address!r}, client, None, None)
for method in ("Start", "Cancel"):
    try:
        c.call_sync(None, "/", {names.TRANSACTION!r}, method, None, None, Gio.DBusCallFlags.NONE, -1)
    except Exception as error:
        print(Gio.DBusError.get_remote_error(error))
"""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script)
    done = subprocess.run(nobody, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["org.freedesktop.DBus.Error.AccessDenied"] * 2, done.stderr
    follower = Follower(address)
    assert follower.call("Start") == (True,)
    follower.end()


def test_errors_have_the_names_that_clients_know(service: Service):
    treefile = GLib.Variant("a{sv}", {"treefile": GLib.Variant("s", "x")})
    assert service.error(lambda: service.os("Upgrade", treefile)).endswith("Code0")
    assert service.error(lambda: service.os("GetCachedUpdateRpmDiff", GLib.Variant("s", ""))).endswith(
        "Code1"
    )
    trigger = GLib.Variant("a{sv}", {"mode": GLib.Variant("s", "auto")})
    assert service.os("AutomaticUpdateTrigger", trigger) == (False, "")


def test_the_services_own_clients_are_told_of_updates_and_of_foreign_changes(service: Service):
    def native(method: str, *arguments: Any) -> None:
        values = GLib.Variant.new_tuple(*arguments)
        where = (own_names.NAME, own_names.SYSROOT_PATH, own_names.SYSROOT, method, values)
        service.bus.call_sync(*where, None, Gio.DBusCallFlags.NONE, 10_000)

    def told(name: str) -> list[Any]:
        return [
            values
            for path, signal, values in service.heard
            if (path, signal) == (own_names.SYSROOT_PATH, name)
        ]

    native("RegisterClient", NONE)
    rows = {"deployments": [deployment(1, booted=True)]}
    (service.place / "status.json").write_text(json.dumps(rows))
    native("Reload")
    wait(lambda: told("ForeignChange"))
    assert told("UpdateAvailable") == []
    offer = {"commit": "3" * 64, "version": "9", "deployment": "", "osname": "debian", "against": "1" * 64}
    empty = {"added": [], "removed": [], "changed": []}
    (service.place / "available-update.json").write_text(json.dumps(offer | UNCHANGED | {"diff": empty}))
    native("Reload")
    native("Reload")
    wait(lambda: told("UpdateAvailable"))
    assert told("UpdateAvailable") == [("3" * 64, "9")]
    assert len(told("ForeignChange")) == 1


def test_an_update_is_told_with_its_packages(service: Service):
    found = {
        "against": "2" * 64, "osname": "debian", "origin": "r:x", "commit": "3" * 64, "version": "9",
        "timestamp": 5, "new_base": True, "gpg_enabled": False, "deployment": "", "layered": ["b"],
        "digest": "",
        "diff": {"added": [{"name": "b", "version": "1:2", "architecture": "all"}], "removed": [],
                 "changed": [{"name": "a", "architecture": "amd64", "old": "2", "new": "1~"}]},
    }  # fmt: skip
    (service.place / "available-update.json").write_text(json.dumps(found))
    shown = service.properties(OS, names.OS)
    assert shown["HasCachedUpdateRpmDiff"] is True
    assert shown["CachedUpdate"]["rpm-diff"] == {
        "added": [(1, "b", "1:2", "all")], "removed": [], "upgraded": [],
        "downgraded": [(0, "a", ("2", "amd64"), ("1~", "amd64"))],
    }  # fmt: skip
    rows, details = service.os("GetCachedUpdateRpmDiff", GLib.Variant("s", f"debian-{'2' * 64}.0"))
    assert [(name, kind, sorted(two)) for name, kind, two in rows] == [
        ("b", 0, ["NewPackage"]), ("a", 3, ["NewPackage", "PreviousPackage"]),
    ]  # fmt: skip
    assert details["version"] == "9" and "rpm-diff" not in details


def test_a_new_stateroot_is_told(service: Service):
    service.sysroot("RegisterClient", NONE)
    (service.place / "stateroots/other").mkdir()
    (service.place / "status.json").write_text(json.dumps({"deployments": [deployment(3, osname="other")]}))
    service.sysroot("Reload")
    path = f"{names.PATH}/other"
    wait(lambda: [v for _p, n, v in service.heard if n == "InterfacesAdded" and v[0] == path])
    assert service.sysroot("GetOS", GLib.Variant("s", "other")) == (path,)
