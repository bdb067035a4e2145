"""The sysroot: deployments, staging, origins, and the refs that keep base commits alive.

Owns OSTree.Sysroot. A changing caller first enters a private mount namespace (system.mounts), so that
libostree may remount /sysroot and /boot writable there and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import kargs, layout
from apt_ostree.model.deployment import Deployment, Deployments, Uncompleted
from apt_ostree.model.origin import Origin, format_origin, parse_origin
from apt_ostree.system import boot_counter, running, signals
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.gi_ostree import DAMAGE, Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo

_LOCK_INTERVAL = 0.1  # seconds
#: Exists while the staged deployment is locked (ostree's OSTREE_SYSROOT_RUNSTATE_STAGED_LOCKED).
_LOCKED = Path("/run/ostree/staged-deployment-locked")
_RUN_STATE = Path("/run/ostree/deployment-state")
#: Commits of overlays and of views without a ref that are left for later, at most.
_MOST_UNREFERENCED = 20
_BASE_REF_PREFIX = "apt-ostree/base"
_UNLOCKED = {
    OSTree.DeploymentUnlockedState.NONE: "none",
    OSTree.DeploymentUnlockedState.DEVELOPMENT: "development",
    OSTree.DeploymentUnlockedState.HOTFIX: "hotfix",
    OSTree.DeploymentUnlockedState.TRANSIENT: "transient",
}


class Sysroot:
    """An opened sysroot.

    path: "/" on a booted system.
    writable: take the sysroot's lock, and wait for it.
    on_wait: called once before waiting for the lock.
    """

    def __init__(
        self, path: str = "/", *, writable: bool = False, on_wait: Callable[[], object] = lambda: None
    ) -> None:
        self.path = path
        self._sysroot = OSTree.Sysroot.new(Gio.File.new_for_path(path))
        with explained(f"open the system root {path}", hint="is this an OSTree system?"):
            if writable:
                self._sysroot.set_mount_namespace_in_use()
                if not self._sysroot.initialize():
                    raise ExternalFailure(f"cannot open the system root {path}")
                self._lock(on_wait)
            self._sysroot.load(None)
        self.repo = Repo(self._sysroot.repo(), writable=writable)

    @contextlib.contextmanager
    def unlocked(self) -> Iterator[None]:
        """Release the lock inside the block; what was read before may be outdated afterwards."""
        self._sysroot.unlock()
        try:
            yield
        finally:
            self._lock(lambda: None)
            self._reload()

    def _lock(self, on_wait: Callable[[], object]) -> None:
        """Take the lock. While libostree itself waited, Python could not handle a signal that cancels."""
        ok, acquired = self._sysroot.try_lock()
        if ok and not acquired:
            on_wait()
        while ok and not acquired:
            time.sleep(_LOCK_INTERVAL)
            ok, acquired = self._sysroot.try_lock()

    def close(self) -> None:
        """Release the lock."""
        self._sysroot.unlock()

    def __enter__(self) -> Sysroot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def in_use(self) -> bool:
        """Return whether a program holds the sysroot's lock (proc_locks(5)); needs no privileges."""
        try:
            lock = (self._physical / "ostree/lock").stat()
        except OSError:
            return False
        where = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
        rows = Path("/proc/locks").read_text().splitlines()
        return any(where in row.split() for row in rows)

    @property
    def state_dir(self) -> Path:
        """Return our directory on the repository's file system, for layers and build roots."""
        return self._physical / "ostree" / "apt-ostree"

    @property
    def _physical(self) -> Path:
        """Return the sysroot by a path that no view covers and that contains no symlink."""
        return Path("/sysroot") if self.path == "/" else Path(self.path)

    def deployments(self) -> Deployments:
        """Return all deployments, the next boot's first."""
        booted = self._sysroot.get_booted_deployment()
        return Deployments(
            tuple(self._to_value(d, i, booted) for i, d in enumerate(self._sysroot.get_deployments()))
        )

    def directory(self, deployment: Deployment) -> Path:
        """Return the deployment's directory, by a path that no view covers."""
        return self._physical / deployment.path

    def uncompleted(self) -> Uncompleted | None:
        """Return the newest deployment that was staged and that no shutdown completed.

        It has an origin, which staging writes last, but no boot entry. The next deployment removes it, but
        for the origin if the directory is gone. Needs no privileges.
        """
        listed = {deployment.path for deployment in self.deployments().all}
        times = {
            path.with_suffix(""): path.stat().st_mtime
            for path in self._physical.glob("ostree/deploy/*/deploy/*.origin")
        }
        newest = max(times.values(), default=0.0)
        gone = [
            (time, path.name.partition(".")[0])
            for path, time in times.items()
            if str(path.relative_to(self._physical)) not in listed and (path.is_dir() or time == newest)
        ]
        if not gone:
            return None
        staged, commit = max(gone)
        return Uncompleted(commit, staged)

    def stage(
        self,
        commit: str,
        origin: Origin,
        merge: Deployment,
        *,
        kernel_arguments: Sequence[str] | None = None,
        locked: bool = False,
        last: bool = False,
    ) -> None:
        """Make `commit` the next boot's deployment.

        On the booted system it is staged (ostree finalises it at shutdown); elsewhere it is deployed at once.

        kernel_arguments: None keeps those of `merge`.
        locked: the shutdown does not finalise it, see `set_locked`.
        last: this is the last step of the request, so that a later cancel has no effect.
        """
        keyfile = _keyfile(format_origin(origin))
        OSTree.Deployment.origin_remove_transient_state(keyfile)  # the pin of the one that it comes from
        # /etc comes from the running system, never from a pending deployment: a staged one is removed before
        # this one is finalised, which would then fail.
        handle = self._sysroot.get_merge_deployment(merge.osname)
        arguments = list(merge.kernel_arguments if kernel_arguments is None else kernel_arguments)
        self._pin_base(commit)
        failpoint("stage.before")
        stop = Gio.Cancellable()
        with self._cleanup_on_failure(), signals.held(stop.cancel) as cancels:
            with explained(f"deploy commit {commit[:12]}"):
                if self._sysroot.get_booted_deployment():
                    self._sysroot.stage_tree(merge.osname, commit, keyfile, handle, arguments, stop)
                else:
                    self._deploy_now(merge.osname, commit, keyfile, handle, arguments)
                self.set_locked(locked)
            boot_counter.start(Path(self.path))
            failpoint("stage.after")
            self._reload()
            self.sync_base_refs()
            if last:
                signals.ignore()
            cancels.clear()  # too late: the deployment is complete

    @contextlib.contextmanager
    def _cleanup_on_failure(self) -> Iterator[None]:
        """On an error, remove the directory of an unfinished deployment."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(GLib.Error):  # the first error is the one to report
                self._sysroot.load(None)
                self._sysroot.prepare_cleanup(None)
            raise

    def _deploy_now(
        self, osname: str, commit: str, keyfile: object, handle: object, arguments: list[str]
    ) -> None:
        _ok, new = self._sysroot.deploy_tree(osname, commit, keyfile, handle, arguments, None)
        self._sysroot.simple_write_deployment(
            osname, new, handle, OSTree.SysrootSimpleWriteDeploymentFlags.NONE, None
        )

    def set_locked(self, locked: bool) -> None:
        """Have the shutdown not finalise the staged deployment, or finalise it (ostree's own file)."""
        if locked:
            _LOCKED.parent.mkdir(exist_ok=True)
            _LOCKED.touch()
        else:
            _LOCKED.unlink(missing_ok=True)

    def pin(self, deployment: Deployment, *, pinned: bool) -> None:
        """Keep a deployment until it is unpinned, or no longer than others; a staged one cannot be."""
        with explained(f"{'pin' if pinned else 'unpin'} the deployment {deployment.id}"):
            self._sysroot.deployment_set_pinned(self._handle(deployment), pinned)
        self._reload()

    def mark_unlocked(self, deployment: Deployment, how: str) -> None:
        """Record how the booted deployment is unlocked: "development", "transient" or "none".

        libostree unlocks only what it has mounted itself. These are the flag files that it reads.
        """
        directory = _RUN_STATE / f"{deployment.checksum}.{deployment.serial}"
        for name in ("development", "transient"):
            flag = directory / f"unlocked-{name}"
            if name == how:
                directory.mkdir(mode=0o755, parents=True, exist_ok=True)
                flag.touch()
            else:
                flag.unlink(missing_ok=True)
        self._reload()

    def unlock_hotfix(self, deployment: Deployment) -> None:
        """Make the deployment's own /usr writable permanently; libostree keeps a copy for a rollback."""
        with explained("unlock the deployment"):
            self._sysroot.deployment_unlock(
                self._handle(deployment), OSTree.DeploymentUnlockedState.HOTFIX, None
            )
        self._reload()

    def keep(self, is_kept: Callable[[Deployment], bool]) -> tuple[Deployment, ...]:
        """Keep only the deployments for which `is_kept` returns true; return the ones dropped."""
        before = self.deployments().all
        dropped = tuple(d for d in before if not is_kept(d))
        if dropped:
            self.write_order([d for d in before if is_kept(d)])
        return dropped

    def write_order(self, order: Sequence[Deployment]) -> None:
        """Write the list of deployments, the next boot's first."""
        handles = [self._handle(d) for d in order]
        failpoint("deployments.before-write")
        with boot_counter.for_another_order(Path(self.path), self._has_staged):
            with explained("write the list of deployments"):
                self._sysroot.write_deployments(handles, None)
            failpoint("deployments.after-write")
            self._reload()
        if not self._has_staged():
            self.set_locked(False)
        self.sync_base_refs()

    def _has_staged(self) -> bool:
        return any(deployment.staged for deployment in self.deployments().all)

    def cleanup(self, *, thorough: bool = False) -> None:
        """Remove deployments' directories that no boot entry needs, then unreachable objects.

        To find these, all trees have to be read, which takes longer than most changes of an overlay. So what
        such changes leave, which is little each time, is removed together with that of others.

        thorough: remove the objects of all commits without a ref, and those of no commit, which a program
            leaves that is killed while it writes one.
        """
        present = {deployment.checksum for deployment in self.deployments().all}
        for ref, checksum in self.repo.refs("ostree").items():
            if checksum not in present:  # libostree does not remove the ref of a dropped staged deployment
                self.repo.set_ref(ref, None)
        self._give_refs()
        if thorough or self._is_worth_pruning():
            self.repo.prune()

    def _is_worth_pruning(self) -> bool:
        """Return whether the commits without a ref are many, or one is a deployment's or is damaged."""
        commits = self.repo.unreferenced_commits()
        return len(commits) > _MOST_UNREFERENCED or any(map(self._is_to_go_at_once, commits))

    def _is_to_go_at_once(self, commit: str) -> bool:
        try:
            return self.repo.is_for_deployments(commit)
        except ExternalFailure:
            return True

    def _give_refs(self) -> None:
        """Remove boot files that no deployment needs, and give each deployment a ref.

        OSTree.Sysroot.cleanup() does the same, but prunes, too, and prints what it freed.
        """
        with explained("clean up the system root", hint=DAMAGE):
            self._sysroot.prepare_cleanup(None)
        without_ref = {d.checksum for d in self.deployments().all} - {*self.repo.refs("ostree").values()}
        if without_ref:
            raise ExternalFailure(f"no ref holds the deployed commits {', '.join(sorted(without_ref))}")

    def _pin_base(self, commit: str) -> None:
        """Point a ref at a layered commit's base before it is deployed: finalising may prune the base."""
        base = self.repo.base_of(commit)
        if base != commit:
            self.repo.set_ref(f"{_BASE_REF_PREFIX}/{base}", base)

    def sync_base_refs(self) -> None:
        """Point refs at the base commit of each layered deployment, so that pruning keeps them."""
        bases = {
            base for d in self.deployments().all if (base := self.repo.base_of(d.checksum)) != d.checksum
        }
        self.repo.sync_refs(_BASE_REF_PREFIX, {f"{_BASE_REF_PREFIX}/{base}": base for base in bases})

    def _reload(self) -> None:
        with explained("read the deployments again"):
            self._sysroot.load(None)

    def _handle(self, deployment: Deployment) -> object:
        key = (deployment.osname, deployment.checksum, deployment.serial)
        for handle in self._sysroot.get_deployments():
            if (handle.get_osname(), handle.get_csum(), handle.get_deployserial()) == key:
                return handle
        raise Refused(
            f"deployment {deployment.id} no longer exists",
            hint="another program changed the system; try again",
        )

    def _to_value(self, handle: object, index: int, booted: object | None) -> Deployment:
        d: OSTree.Deployment = handle
        origin = d.get_origin()
        boot = d.get_bootconfig()
        options = (boot.get("options") if boot else None) or ""
        return Deployment(
            index=index,
            osname=d.get_osname(),
            checksum=d.get_csum(),
            serial=d.get_deployserial(),
            path=f"ostree/deploy/{d.get_osname()}/deploy/{d.get_csum()}.{d.get_deployserial()}",
            origin=parse_origin(origin.to_data()[0]) if origin else Origin(),
            booted=booted is not None and d.equal(booted),
            staged=d.is_staged(),
            pinned=d.is_pinned(),
            unlocked=_UNLOCKED.get(d.get_unlocked(), "none"),
            kernel_arguments=kargs.own(kargs.split(options)),
            boot_checksum=d.get_bootcsum(),
            locked=d.is_staged() and _LOCKED.exists(),
        )


def is_booted_on_ostree() -> bool:
    """Return whether this system was booted from an OSTree deployment."""
    return running.booted_on_ostree()


def require_booted() -> None:
    """Raise Refused if the system was not booted from an OSTree deployment."""
    if not is_booted_on_ostree():
        raise Refused(
            "this system was not booted from an OSTree deployment",
            hint="run this command on an image-based system, or try it with 'make testbed'",
        )


def _keyfile(text: str) -> GLib.KeyFile:
    keyfile = GLib.KeyFile.new()
    keyfile.load_from_data(text, len(text.encode()), GLib.KeyFileFlags.KEEP_COMMENTS)
    return keyfile


__all__ = ["Sysroot", "is_booted_on_ostree", "require_booted", "layout"]
