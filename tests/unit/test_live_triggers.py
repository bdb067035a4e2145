"""Triggers of a live change and of its undo, on a real repository; a kernel of sets and values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apt_ostree.core import apply_live
from apt_ostree.core.live import triggers as live_triggers
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import triggers
from apt_ostree.model.requests.live import ApplyLive, RollbackLive
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.result import Result
from apt_ostree.model.triggers import Trigger
from apt_ostree.system import kernel_settings, statedb
from tests.unit import repos
from tests.unit.repos import System

PROFILE = "etc/apparmor.d/usr.sbin.named"
PARSER = {"usr/sbin/apparmor_parser": "#!/bin/sh\n"}


@dataclass
class FakeKernel:
    """The settings of a kernel, and the programs that read files of the system in a directory."""

    system: System
    sysctl: dict[str, str] = field(
        default_factory=lambda: {"vm/swappiness": "60", "net/a/x": "0", "net/b/x": "0"}
    )
    present_formats: set[str] = field(default_factory=set)
    present_profiles: set[str] = field(default_factory=lambda: {"man"})
    modules: list[str] = field(default_factory=list)
    loads: list[tuple[str, ...]] = field(default_factory=list)
    allowed: frozenset[Trigger] = frozenset(Trigger)
    files: dict[str, str] = field(default_factory=dict)  # what /usr/lib has, which nobody mounts here

    def possible(self) -> frozenset[Trigger]:
        return self.allowed

    def expand(self, keys: Iterable[str]) -> tuple[str, ...]:
        patterns = [re.compile(key.replace("*", "[^/]*")) for key in keys]
        return tuple(key for key in self.sysctl if any(p.fullmatch(key) for p in patterns))

    def value(self, key: str) -> str | None:
        return self.sysctl.get(key)

    def set_value(self, key: str, value: str) -> None:
        self.sysctl[key] = value

    def apply_sysctl(self, keys: Collection[str]) -> None:
        for text in self._texts("sysctl.d"):
            for key, _, value in (line.partition("=") for line in text.splitlines()):
                for name in set(self.expand(triggers.keys(f"{key}="))) & set(keys):
                    self.sysctl[name] = value

    def load_modules(self, configs: Sequence[str]) -> None:
        self.modules += configs

    def formats(self) -> frozenset[str]:
        return frozenset(self.present_formats)

    def register_formats(self, configs: Sequence[str]) -> None:
        for text in self._texts("binfmt.d"):
            self.present_formats.update(triggers.formats(text))

    def remove_format(self, name: str) -> None:
        self.present_formats.remove(name)

    def profiles(self) -> frozenset[str]:
        return frozenset(self.present_profiles)

    def profiles_in(self, file: str) -> tuple[str, ...]:
        path = self._path(file)
        return tuple(path.read_text().split()) if path.is_file() else ()

    def load_profiles(self, paths: Sequence[str]) -> None:
        self.loads.append(tuple(self._path(path).read_text() for path in paths))
        self.present_profiles.update(name for path in paths for name in self.profiles_in(path))

    def remove_profile(self, name: str) -> None:
        self.present_profiles.remove(name)

    def _path(self, path: str) -> Path:
        return self.system.etc / path.removeprefix("/etc/")

    def _texts(self, directory: str) -> list[str]:
        own = self.system.etc / directory
        etc = {path.name: path.read_text() for path in own.glob("*")} if own.is_dir() else {}
        usr = {Path(path).name: text for path, text in self.files.items() if f"lib/{directory}/" in path}
        return [text for _name, text in sorted((usr | etc).items())]


@pytest.fixture
def fake(system: System, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    made = FakeKernel(system)
    for name in vars(FakeKernel):
        if not name.startswith("_") and callable(getattr(made, name)):
            monkeypatch.setattr(kernel_settings, name, getattr(made, name))
    # The paths of triggers are those of the running system.
    monkeypatch.setattr(
        live_triggers, "Path", lambda path: made._path(path) if "/etc/" in path else Path(path)
    )
    return made


def show(system: System, fake: FakeKernel, ref: str, files: dict[str, str], base=repos.TWO):
    """Make a tree with some more files live."""
    commit = repos.write_commit(
        system.repo, {**base, **PARSER, **files}, ref=ref, packages=repos.PACKAGES["two"]
    )
    fake.files = {path: text for path, text in files.items() if path.startswith("usr/lib/")}
    request = ApplyLive(target=commit, live=LiveOptions(allow_replacement=True))
    return triggers_of(system.run(apply_live.apply_live, request))


def go_back(system: System, fake: FakeKernel):
    fake.files = {}
    return triggers_of(system.run(apply_live.rollback_live, RollbackLive()))


def triggers_of(result: Result):
    return json.loads(json.dumps(result.details["plan"]["triggers"]))


SYSCTL = "usr/lib/sysctl.d/50-ut.conf"


def test_keys_are_set_and_given_back(system: System, fake: FakeKernel):
    (step,) = show(system, fake, "a", {SYSCTL: "vm.swappiness=10\nnet.*.x=1\nnet.none=1\n"})
    assert step["names"] == ["vm/swappiness", "net/*/x", "net/none"]
    assert fake.sysctl == {"vm/swappiness": "10", "net/a/x": "1", "net/b/x": "1"}
    (back,) = go_back(system, fake)
    assert back["trigger"] == "sysctl"
    assert fake.sysctl == {"vm/swappiness": "60", "net/a/x": "0", "net/b/x": "0"}


def test_a_key_that_somebody_set_since_is_kept(system: System, fake: FakeKernel):
    show(system, fake, "a", {SYSCTL: "vm.swappiness=10\nnet.a.x=1\n"})
    fake.sysctl["vm/swappiness"] = "33"
    go_back(system, fake)
    assert fake.sysctl == {"vm/swappiness": "33", "net/a/x": "0", "net/b/x": "0"}
    assert "kept vm.swappiness = 33: it was changed after the update" in system.told("warning")


def test_several_generations_go_back_to_what_was_before_the_first(system: System, fake: FakeKernel):
    show(system, fake, "a", {SYSCTL: "vm.swappiness=10\n"})
    show(system, fake, "b", {SYSCTL: "vm.swappiness=20\n"})
    assert fake.sysctl["vm/swappiness"] == "20"
    fake.files = {}
    system.run(apply_live.rollback_live, RollbackLive(generation=0))
    assert fake.sysctl["vm/swappiness"] == "60"


def test_a_removed_file_gives_back_what_this_boot_has_set(system: System, fake: FakeKernel):
    show(system, fake, "a", {SYSCTL: "vm.swappiness=10\nnet.a.x=1\n"})
    (step,) = show(system, fake, "b", {"usr/lib/sysctl.d/10-ut.conf": "net.a.x=2\n"})
    assert [step["names"], step["gone"]] == [["net/a/x"], ["vm/swappiness"]]
    assert fake.sysctl == {"vm/swappiness": "60", "net/a/x": "2", "net/b/x": "0"}
    fake.files = {SYSCTL: ""}
    system.run(apply_live.rollback_live, RollbackLive())
    assert fake.sysctl == {"vm/swappiness": "10", "net/a/x": "1", "net/b/x": "0"}


def test_a_file_of_etc_overrides_the_one_of_that_name(system: System, fake: FakeKernel):
    (system.etc / "sysctl.d").mkdir()
    (system.etc / "sysctl.d/50-ut.conf").write_text("vm.swappiness=1\n")
    show(system, fake, "a", {SYSCTL: "vm.swappiness=10\n"})
    assert fake.sysctl["vm/swappiness"] == "1"


def test_profiles_and_formats_that_came_go_again(system: System, fake: FakeKernel):
    fake.present_formats = {"old"}
    steps = show(
        system, fake, "a",
        {f"usr/{PROFILE}": "named nsupdate", "usr/lib/binfmt.d/a.conf": ":new:E::new::/bin/new:"},
    )  # fmt: skip
    assert [step["trigger"] for step in steps] == ["binfmt", "apparmor"]
    assert fake.present_profiles == {"man", "named", "nsupdate"}
    assert fake.present_formats == {"old", "new"}
    go_back(system, fake)
    assert fake.present_profiles == {"man"}
    assert fake.present_formats == {"old"}


def test_a_changed_profile_is_loaded_and_the_earlier_one_again(system: System, fake: FakeKernel):
    show(system, fake, "a", {f"usr/{PROFILE}": "named"})
    show(system, fake, "b", {f"usr/{PROFILE}": "named other"})
    assert fake.loads == [("named",), ("named other",)]
    go_back(system, fake)
    assert fake.loads[2:] == [("named",)]
    assert fake.present_profiles == {"man", "named"}


def test_a_removed_profile_is_unloaded_but_not_one_that_only_moved(system: System, fake: FakeKernel):
    show(system, fake, "a", {f"usr/{PROFILE}": "named nsupdate"})
    show(system, fake, "b", {"usr/etc/apparmor.d/named": "named"})
    assert fake.present_profiles == {"man", "named"}
    go_back(system, fake)
    assert fake.present_profiles == {"man", "named", "nsupdate"}


def test_a_removed_profile_is_unloaded_if_nothing_else_changes(system: System, fake: FakeKernel):
    show(system, fake, "a", {f"usr/{PROFILE}": "named"})
    (step,) = show(system, fake, "b", {})
    assert step["gone"] == ["named"]
    assert fake.present_profiles == {"man"}
    go_back(system, fake)
    assert fake.present_profiles == {"man", "named"}


def test_a_profile_that_the_administrator_keeps_stays_loaded(system: System, fake: FakeKernel):
    show(system, fake, "a", {f"usr/{PROFILE}": "named"})
    (system.etc / PROFILE.removeprefix("etc/")).write_text("named # edited")
    assert show(system, fake, "b", {}) == []
    assert fake.present_profiles == {"man", "named"}


@pytest.mark.parametrize("trigger", [Trigger.SYSCTL, Trigger.APPARMOR])
def test_what_a_container_does_not_allow_is_not_planned(system: System, fake: FakeKernel, trigger):
    fake.allowed -= {trigger}
    steps = show(system, fake, "a", {SYSCTL: "vm.swappiness=10", f"usr/{PROFILE}": "named"})
    assert [step["trigger"] for step in steps] == [
        other for other in (Trigger.SYSCTL, Trigger.APPARMOR) if other is not trigger
    ]


def test_a_masked_unit_says_that_the_administrator_does_not_want_it(system: System, fake: FakeKernel):
    system.programs.add_unit("systemd-sysctl.service", LoadState="masked")
    assert show(system, fake, "a", {SYSCTL: "vm.swappiness=10"}) == []
    assert fake.sysctl["vm/swappiness"] == "60"


def test_profiles_need_the_parser(system: System, fake: FakeKernel):
    commit = repos.write_commit(system.repo, {**repos.TWO, f"usr/{PROFILE}": "named"}, ref="a")
    live = LiveOptions(allow_replacement=True)
    assert triggers_of(system.run(apply_live.apply_live, ApplyLive(target=commit, live=live))) == []


MANDB = {"usr/bin/mandb": "x", "usr/share/man/man1/a.1.gz": "x"}
MAN_DB = "apt-ostree-man-db.service"


def test_manual_pages_have_their_index_renewed_there_and_back(system: System, fake: FakeKernel):
    (step,) = show(system, fake, "a", MANDB)
    assert (step["trigger"], step["files"]) == ("man-db", ["/usr/share/man/man1"])
    assert system.programs.ran("systemctl", "restart", "--no-block", MAN_DB)
    show(system, fake, "b", {**MANDB, "usr/share/man/man1/b.1.gz": "x"})
    system.programs.calls.clear()
    go_back(system, fake)
    assert system.programs.ran("systemctl", "restart", "--no-block", MAN_DB)


def test_manual_pages_mean_nothing_without_man_db(system: System, fake: FakeKernel):
    assert show(system, fake, "a", {"usr/share/man/man1/a.1.gz": "x"}) == []
    assert not system.programs.ran("systemctl", MAN_DB)


def test_an_index_of_manual_pages_that_is_masked_stays(system: System, fake: FakeKernel):
    system.programs.add_unit(MAN_DB, LoadState="masked")
    assert show(system, fake, "a", MANDB) == []


def test_a_failure_is_a_warning(system: System, fake: FakeKernel, monkeypatch):
    def fails(_configs: Sequence[str]) -> None:
        raise ExternalFailure("cannot load kernel modules", details=["no such module"])

    monkeypatch.setattr(kernel_settings, "load_modules", fails)
    show(system, fake, "a", {"usr/lib/modules-load.d/a.conf": "nosuch\n"})
    assert "cannot load kernel modules; no such module" in system.told("warning")


def test_a_failed_change_gives_the_kernel_back(system: System, fake: FakeKernel, monkeypatch):
    monkeypatch.setattr(live_triggers, "failpoint", _failing("act.triggered"))
    with pytest.raises(ExternalFailure, match="stop"):
        show(system, fake, "a", {SYSCTL: "vm.swappiness=10", f"usr/{PROFILE}": "named"})
    assert fake.sysctl["vm/swappiness"] == "60"
    assert fake.present_profiles == {"man"}
    with statedb.read_only() as records:
        assert records
        assert records.generations() == ()


@pytest.mark.parametrize("point", ["act.kernel-recorded", "act.kernel"])
def test_an_interruption_leaves_nothing_in_the_kernel(system: System, fake: FakeKernel, monkeypatch, point):
    monkeypatch.setattr(live_triggers, "failpoint", _failing(point))
    with pytest.raises(ExternalFailure, match="stop"):
        show(system, fake, "a", {SYSCTL: "vm.swappiness=10"})
    assert fake.sysctl["vm/swappiness"] == "60"


def _failing(name: str) -> Callable[[str], None]:
    def failpoint(passed: str) -> None:
        if passed == name:
            raise ExternalFailure("stop")

    return failpoint
