"""A system in a directory: real repository, deployments and records, and fakes where the kernel begins.

It needs neither root nor a booted deployment. What is replaced: which deployment was booted (nobody can
choose that), the mounts at /usr, other programs (systemctl above all), and the paths /etc and
/var/lib/apt-ostree.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import importlib
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import apt_ostree.core
from apt_ostree.core import transaction
from apt_ostree.core.state import reading, reserve
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError
from apt_ostree.model import events, layout, overlay
from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.origin import Origin
from apt_ostree.model.package import Package
from apt_ostree.model.settings import Settings
from apt_ostree.model.unit import Process
from apt_ostree.system import (
    caller,
    failpoints,
    mountinfo,
    mounts,
    nosuid,
    process,
    running,
    statedb,
    systemd_login,
)
from apt_ostree.system import (
    settings as settings_files,
)
from apt_ostree.system.mountinfo import MountPoint
from apt_ostree.system.ostree import commit as commits
from apt_ostree.system.ostree import sysroot as sysroots
from apt_ostree.system.ostree.gi_ostree import Gio, OSTree
from apt_ostree.system.ostree.repo import Repo, package_list, text
from apt_ostree.system.ostree.sysroot import Sysroot

OSNAME = "debian"
USR = "/usr"
IS_ROOT = os.geteuid() == 0
ME = (os.geteuid(), os.getegid())
#: A tree: path -> content of a file, or the target of a link after "-> ".
Tree = Mapping[str, str]
KERNEL: Tree = {
    "usr/lib/modules/6.1/vmlinuz": "kernel",
    "usr/lib/modules/6.1/initramfs.img": "initramfs",
    "usr/lib/os-release": "ID=test\nPRETTY_NAME=Test\n",
}
#: Two states of a system, and what they hold.
ONE: Tree = {**KERNEL, "usr/bin/tool": "one", "usr/share/old": "old", "usr/etc/ut/tool.conf": "one\n"}
TWO: Tree = {**KERNEL, "usr/bin/tool": "two", "usr/share/new": "new", "usr/etc/ut/tool.conf": "two\n"}
PACKAGES = {
    "one": [Package("base", "1", "all"), Package("tool", "1.0", "amd64")],
    "two": [Package("base", "1", "all"), Package("extra", "1", "all"), Package("tool", "2.0", "amd64")],
}


# --- repositories


def make_repo(path: Path) -> Repo:
    """Make a repository as a system has it; without root, one that keeps owners beside the files."""
    path.mkdir(parents=True)
    made = OSTree.Repo.new(Gio.File.new_for_path(str(path)))
    made.create(OSTree.RepoMode.BARE if IS_ROOT else OSTree.RepoMode.BARE_USER, None)
    config = path / "config"
    config.write_text(config.read_text() + "fsync=false\n")
    return open_repo(path)


def open_repo(path: Path) -> Repo:
    """Open a repository that `make_repo` made."""
    return _UserRepo(Repo.open(path).handle, writable=True)


class _UserRepo(Repo):
    def checkout(self, checksum: str, parent: Path, name: str, *, subpath: str = "/") -> None:
        """Check a commit out; nobody but root can give files to others."""
        if IS_ROOT:
            super().checkout(checksum, parent, name, subpath=subpath)
            return
        options = OSTree.RepoCheckoutAtOptions()
        options.mode = OSTree.RepoCheckoutMode.USER
        options.process_passthrough_whiteouts = True
        options.subpath = subpath
        with _opened(parent) as fd:
            self.handle.checkout_at(options, fd, name, checksum, None)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def write_files(top: Path, tree: Tree) -> None:
    """Write a tree into a directory."""
    for name, content in tree.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_text(content)
            path.chmod(0o755 if "/bin/" in name or content.startswith("#!") else 0o644)


def write_commit(
    repo: Repo, tree: Tree, *, ref: str = "test", packages: Sequence[Package] | None = None, **metadata: str
) -> str:
    """Write a tree as a commit of a ref, with a list of packages and further words of metadata."""
    place = Path(repo.handle.get_path().get_path()).resolve()  # a system root has it by a descriptor
    top = place.parent / "tree-being-written"
    top.mkdir()
    top.chmod(0o755)
    write_files(top, tree)
    rows = {key.replace("_", "-"): text(value) for key, value in metadata.items()}
    if packages is not None:
        rows[layout.META_PACKAGES] = package_list(packages)
    written = commits.commit_directory(
        place, top, ref, subject=ref, timestamp=1_700_000_000, metadata=rows, keep_parent=False
    )
    shutil.rmtree(top, ignore_errors=True)
    return written.checksum


def read_files(repo: Repo, commit: str, work: Path, subpath: str = "/") -> dict[str, str]:
    """Return the files of a commit with their contents."""
    name = f"read-{commit[:8]}-{len(os.listdir(work))}"
    repo.checkout(commit, work, name, subpath=subpath)
    top = work / name
    return {str(p.relative_to(top)): p.read_text() for p in top.rglob("*") if p.is_file()}


# --- the kernel and other programs


@dataclass
class View:
    """A mount at /usr."""

    source: str
    lowers: tuple[str, ...]
    upper: tuple[str, str] | None
    read_only: bool


class Kernel:
    """The mounts at /usr that everybody sees, as system.mounts changes and system.mountinfo lists them."""

    def __init__(self) -> None:
        self.usr: list[View] = []
        self._detached: dict[int, View] = {}

    def read(self, _pid: int | str = "self") -> tuple[MountPoint, ...]:
        rows = [MountPoint(1, 0, "/", "/", "ext4", "/dev/vda", "rw", "rw")]
        for number, view in enumerate(self.usr, start=2):
            upper = f",upperdir={view.upper[0]},workdir={view.upper[1]}" if view.upper else ""
            options = "ro" if view.read_only else "rw"
            words = (USR, "overlay", view.source, options, f"{options}{upper}")
            rows.append(MountPoint(number, number - 1, "/", *words))
        return tuple(rows)

    def new_overlay_mount(
        self,
        lowers: Sequence[str],
        *,
        source: str,
        scratch: Path,
        upper: tuple[str, str] | None = None,
        options: Mapping[str, str | None] | None = None,
        read_only: bool = True,
    ) -> int:
        assert scratch.is_dir()
        assert all(Path(lower).is_dir() for lower in lowers)
        fd = os.open("/dev/null", os.O_RDONLY)
        self._detached[fd] = View(source, tuple(lowers), upper, read_only)
        return fd

    def attach(self, fd: int, target: str | Path, *, beneath: bool = False) -> None:
        assert str(target) == USR
        self.usr.insert(len(self.usr) - beneath, self._detached.pop(fd))

    def umount(self, target: str | Path, *, detach: bool = False) -> None:
        assert str(target) == USR
        assert detach
        self.usr.pop()

    def sources(self) -> list[str]:
        """Return what is mounted, the visible one last."""
        return [view.source for view in self.usr]


@dataclass
class Programs:
    """Other programs. `units`: what systemd knows, name -> properties; `results`: program -> what it does."""

    units: dict[str, dict[str, str]] = field(default_factory=dict)
    results: dict[str, Callable[[list[str]], tuple[int, str]]] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    state: str = "running"
    failing: set[str] = field(default_factory=set)

    def run(
        self, argv: Sequence[str | Path], *, what: str, check: bool = True, **_how: Any
    ) -> subprocess.CompletedProcess[str]:
        words = [os.fspath(word) for word in argv]
        program = Path(words[0]).name
        if program == "systemctl":
            words = [word for word in words if word != "--no-pager"]
        self.calls.append(words)
        chosen = self.results.get(words[0]) or self.results.get(program)
        act = chosen or (self._systemctl if program == "systemctl" else lambda _words: (0, ""))
        code, out = act(words)
        done = subprocess.CompletedProcess(words, code, out, "")
        if check and code:
            raise process.failure(what, done, out)
        return done

    def run_at_once(
        self, commands: Sequence[Sequence[str]], *, what: str
    ) -> tuple[subprocess.CompletedProcess[str], ...]:
        return tuple(self.run(command, what=what, check=False) for command in commands)

    def ran(self, *words: str) -> bool:
        """Tell whether a program was run with these words in it."""
        return any(set(words) <= set(call) for call in self.calls)

    def add_unit(self, name: str, **properties: str) -> None:
        """Add a unit that runs; its definition lies in the tree."""
        kind = {"Type": "simple"} if name.endswith(".service") else {}
        path = f"/usr/lib/systemd/system/{name}"
        self.units[name] = {
            "Id": name, "ActiveState": "active", "SubState": "running", "LoadState": "loaded", **kind,
            "FragmentPath": path, "CanReload": "no", "RefuseManualStop": "no", "RemainAfterExit": "no",
            "MainPID": "0", "NRestarts": "0", "Result": "success", "Job": "0", **properties,
        }  # fmt: skip

    def _systemctl(self, words: list[str]) -> tuple[int, str]:
        verb, names = words[1], words[words.index("--") + 1 :] if "--" in words else []
        if verb == "is-system-running":
            return 0, f"{self.state}\n"
        if verb == "show":
            state = next((word[8:].partition(",")[0] for word in words if word.startswith("--state=")), "")
            found = [row for name in names for row in self._units(name, state)]
            return 0, "\n\n".join("\n".join(f"{k}={v}" for k, v in row.items()) for row in found)
        new = {"start": "active", "restart": "active", "try-restart": "active", "stop": "inactive"}.get(verb)
        for name in names if new else ():
            if name in self.failing and new == "active":
                self.units[name]["ActiveState"] = "failed"
                return 1, f"{name} failed"
            self.units.setdefault(name, {"Id": name, "LoadState": "not-found"})["ActiveState"] = str(new)
        return 0, ""

    def _units(self, name: str, state: str) -> Iterator[dict[str, str]]:
        if "*" not in name:
            yield self.units.get(name, {"Id": name, "LoadState": "not-found", "ActiveState": "inactive"})
            return
        for unit, row in self.units.items():
            if fnmatch.fnmatchcase(unit, name) and row["ActiveState"] == (state or row["ActiveState"]):
                yield row


# --- the system


_PINNED = "libostree-transient"  # the group of an origin that says so


class Machine(Sysroot):
    """A real system root of which one deployment passes for the booted one.

    passes_for_root: who only reads it is told that it is at /, as that of the running system is.
    """

    passes_for_root = False

    def __init__(self, place: Path, booted: str, *, writable: bool = False, **options: Any) -> None:
        super().__init__(str(place), writable=writable, **options)
        self.place = place
        if self.passes_for_root and not writable:
            self.path = "/"
        self.repo = _UserRepo(self.repo.handle, writable=writable)
        self._booted = booted

    def deployments(self) -> Deployments:
        """Return the deployments; those before the booted one are staged."""
        found = super().deployments().all
        at = next((d.index for d in found if d.checksum == self._booted), None)
        return Deployments(
            tuple(
                replace(
                    d,
                    booted=d.index == at,
                    staged=at is not None and d.index < at,
                    pinned=d.pinned and d.index != at,
                    origin=replace(d.origin, rest=tuple(r for r in d.origin.rest if r[0] != _PINNED)),
                    unlocked=(_flag(self).read_text() if d.index == at and _flag(self).exists() else "none"),
                )
                for d in found
            )
        )

    def stage(
        self, commit: str, origin: Origin, merge: Deployment, *, last: bool = False, **options: Any
    ) -> None:
        """Deploy a commit as the next boot's; one that was staged before goes."""
        super().stage(commit, origin, merge, last=last, **options)
        before = [d for d in self.deployments().all if d.staged][1:]
        self.keep(lambda deployment: deployment not in before)

    def mark_unlocked(self, deployment: Deployment, how: str) -> None:
        """Remember how /usr is unlocked, in the system itself and not in /run."""
        assert deployment.booted
        _flag(self).write_text(how)


def _flag(machine: Machine) -> Path:
    return machine.place / "unlocked"


@dataclass
class System:
    """The system, and what happened on it."""

    place: Path
    etc: Path
    state: Path
    one: str
    two: str
    booted: str
    kernel: Kernel = field(default_factory=Kernel)
    programs: Programs = field(default_factory=Programs)
    settings: Settings = field(default_factory=lambda: Settings(overlay_allow=() if IS_ROOT else ("owner",)))
    processes: list[Process] = field(default_factory=list)
    events: list[events.Event] = field(default_factory=list)
    boots: int = 0

    def open(self, *, writable: bool = True, **options: Any) -> Machine:
        """Open the system root."""
        return Machine(self.place, self.booted, writable=writable, **options)

    @property
    def repo(self) -> Repo:
        """Return the repository."""
        return open_repo(self.place / "ostree/repo")

    @contextmanager
    def transaction(
        self, title: str = "test", ask: Callable[[], bool] | None = None
    ) -> Iterator[Transaction]:
        """Give a transaction that has opened the system."""
        tx = Transaction(self.events.append, title, ask=ask)
        with tx.changing("test"):
            yield tx

    def run(
        self,
        function: Callable[[Transaction, Any], Any],
        request: Any,
        *,
        ask: Callable[[], bool] | None = None,
    ) -> Any:
        """Run a verb's function as the worker does."""
        return function(Transaction(self.events.append, request.title, ask=ask), request)

    def told(self, kind: str = "info") -> list[str]:
        """Return the messages of a level."""
        found = (e for e in self.events if isinstance(e, events.Message))
        return [e.text for e in found if e.level == kind]

    def plans(self, kind: str = "live") -> list[Mapping[str, Any]]:
        """Return the plans that were shown."""
        return [e.plan for e in self.events if isinstance(e, events.PlanShown) and e.kind == kind]

    def order(self) -> list[str]:
        """Return the commits of the deployments, the next boot's first."""
        with self.open(writable=False) as machine:
            return [d.checksum for d in machine.deployments().all]

    def overlay_states(self) -> dict[str, overlay.State]:
        """Return the states of the overlays by their ids."""
        with statedb.read_only() as records:
            return {s.id: s for s in records.overlays()} if records else {}

    def visible_overlays(self) -> list[str]:
        """Return the ids of the overlays that the records say are shown."""
        with self.transaction() as tx:
            return [applied.id for applied in tx.live.goal.overlays]

    def unpin(self, number: int) -> None:
        """Let a deployment be pruned that passed for the booted one."""
        handle = OSTree.Sysroot.new(Gio.File.new_for_path(str(self.place)))
        handle.load(None)
        handle.deployment_set_pinned(handle.get_deployments()[number], False)

    def reboot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lose what a reboot loses."""
        self.kernel.usr.clear()
        self.boots += 1
        number = f"boot {self.boots}"
        patch_everywhere(monkeypatch, BOOT_ID, lambda: number)


BOOT_ID = running.boot_id


def make_template(place: Path) -> dict[str, str]:
    """Make a system root with the trees ONE and TWO, the first of which is deployed; return their commits."""
    root = place / "system"
    repo = make_repo(root / "ostree/repo")
    handle = OSTree.Sysroot.new(Gio.File.new_for_path(str(root)))
    handle.ensure_initialized(None)
    handle.init_osname(OSNAME, None)
    found = {
        name: write_commit(repo, tree, ref=name, packages=PACKAGES[name], version=name)
        for name, tree in (("one", ONE), ("two", TWO))
    }
    with Sysroot(str(root), writable=True) as sysroot:
        nobody = Deployment(0, OSNAME, "", 0, "", Origin(), False, False, False, "none")
        sysroot.stage(found["one"], Origin(refspec="one"), nobody)
        handle.load(None)
        handle.deployment_set_pinned(handle.get_deployments()[0], True)  # nothing prunes what is booted
    return found


@contextmanager
def running_system(
    template: Path, found: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[System]:
    """Copy the template, and have the code see that system and no other."""
    with memory_directory() as place, same_signals():
        subprocess.run(["cp", "-a", template / "system", place / "system"], check=True)
        (place / "state").mkdir()
        write_files(place, {f"etc/{name[8:]}": ONE[name] for name in ONE if name.startswith("usr/etc/")})
        parts = (place / name for name in ("system", "etc", "state"))
        system = System(*parts, found["one"], found["two"], found["one"])
        _have_it_seen(system, monkeypatch)
        yield system
        assert system.state == statedb.DIRECTORY, "what keeps the host out of it was undone"


def _have_it_seen(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    _import_all()
    monkeypatch.setattr(transaction, "Sysroot", system.open)
    monkeypatch.setattr(reading, "Sysroot", lambda *_: system.open(writable=False))
    monkeypatch.setattr(settings_files, "load", lambda: system.settings)
    monkeypatch.setattr(reserve, "_SIZES", dict.fromkeys(reserve._SIZES, 50_000))  # of memory
    monkeypatch.setattr(systemd_login, "inhibited", lambda _why: nullcontext())
    monkeypatch.setattr(running, "processes", lambda: iter(system.processes))
    monkeypatch.setattr(process, "run", system.programs.run)
    monkeypatch.setattr(process, "run_at_once", system.programs.run_at_once)
    monkeypatch.setattr(mountinfo, "read", system.kernel.read)
    for name in ("new_overlay_mount", "attach", "umount"):
        monkeypatch.setattr(mounts, name, getattr(system.kernel, name))
    for name in ("mount", "set_nosuid", "in_namespace"):
        monkeypatch.setattr(mounts, name, _never_mounts)
    monkeypatch.setattr(nosuid, "covering", lambda _target: nullcontext())
    monkeypatch.setattr(nosuid, "uncovered", lambda _target: None)
    monkeypatch.setattr(mounts, "in_namespace_of", lambda _pid: nullcontext())
    monkeypatch.setattr(mounts, "enter_private_namespace", lambda: None)
    monkeypatch.setattr(mounts, "sync_file_system", lambda _directory: None)  # others write to the disk, too
    for function in (caller.require_root, sysroots.require_booted, sysroots.is_booted_on_ostree):
        patch_everywhere(monkeypatch, function, lambda *_: True)
    cache = Path("/var/cache/apt-ostree")
    places = {Path("/etc"): system.etc, statedb.DIRECTORY: system.state, cache: system.state / "cache"}
    _move_paths(monkeypatch, places)


def _never_mounts(*arguments: object, **_options: object) -> None:
    raise AssertionError(f"a unit test mounts nothing, and it would stay if the test is killed: {arguments}")


@contextmanager
def memory_directory() -> Iterator[Path]:
    """Give a directory in memory, where that will do: SQLite flushes every transaction to the disk."""
    with tempfile.TemporaryDirectory(prefix="apt-ostree-unit-", dir=_memory()) as name:
        yield Path(name)


@cache
def _memory() -> str | None:
    """Return where directories in memory are made; None where it knows no user's attributes (tmpfs(5))."""
    try:
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            os.setxattr(file.name, "user.test", b"1")
    except OSError:
        return None
    return "/dev/shm"


@contextmanager
def same_signals() -> Iterator[None]:
    """Restore the handlers of signals: at the end of a change, a worker takes no cancel any more."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@cache
def _import_all() -> None:
    for found in pkgutil.walk_packages(apt_ostree.core.__path__, "apt_ostree.core."):
        importlib.import_module(found.name)


def _modules() -> list[Any]:
    return [module for name, module in sys.modules.items() if name.startswith("apt_ostree.")]


@cache
def _constants() -> list[tuple[Any, str, Path]]:
    """Return every constant of a module, and every default of a parameter, that is a path."""
    found: list[tuple[Any, str, Path]] = []
    for module in _modules():
        for name, value in vars(module).items():
            defaults = getattr(value, "__kwdefaults__", None) or {}
            found += [(defaults, key, path) for key, path in defaults.items() if isinstance(path, Path)]
            found += [(module, name, value)] if isinstance(value, Path) else []
    return found


def _move_paths(monkeypatch: pytest.MonkeyPatch, places: Mapping[Path, Path]) -> None:
    """Have every such path lie in another place."""
    for owner, name, path in _constants():
        for old, new in places.items():
            if path.is_relative_to(old):
                put = monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr
                put(owner, name, new / path.relative_to(old))


@cache
def _places_of(function: Callable[..., Any]) -> list[tuple[Any, str]]:
    """Return where a function is known by a name."""
    _import_all()
    return [(m, name) for m in _modules() for name, value in vars(m).items() if value is function]


def patch_everywhere(
    monkeypatch: pytest.MonkeyPatch, old: Callable[..., Any], new: Callable[..., Any]
) -> None:
    """Replace a function in every module that has imported it by name."""
    for module, name in _places_of(old):
        monkeypatch.setattr(module, name, new)


def fail_at(monkeypatch: pytest.MonkeyPatch, point: str, failure: BaseException | None = None) -> None:
    """Have the first passing of a failpoint fail, as a failing disk does."""
    left = [failure or OSError(errno.EIO, f"failpoint {point}")]

    def failpoint(name: str) -> None:
        if name == point and left:
            raise left.pop()

    patch_everywhere(monkeypatch, failpoints.failpoint, failpoint)


def refused(error: AptOstreeError) -> str:
    """Return all that an error says."""
    return "\n".join((error.message, *error.details, error.hint or ""))


with contextlib.suppress(KeyError):
    del os.environ["APT_OSTREE_FAILPOINT"]
os.environ["OSTREE_SYSROOT_DEBUG"] = "mutable-deployments,no-xattrs"  # read once, by libostree's first use
