"""Boots a mounted disk in systemd-nspawn, the way an OSTree initramfs would lay it out."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

from testbed_lib.boot import Boot
from testbed_lib.bootentry import choose_entry, deployment_of
from testbed_lib.common import TestbedError, wait_until
from testbed_lib.image import STATEROOT, bind_mounted, mounted_disk

#: nspawn's exit code when the machine wants to reboot and nspawn runs as a service (--keep-unit).
_EXIT_REBOOT = 133
#: What systemd as PID 1 understands.
_POWEROFF, _REBOOT = signal.SIGRTMIN + 4, signal.SIGRTMIN + 5

#: PID 1 before it becomes systemd. nspawn's bind of /usr is in the peer group of /, where the kernel refuses
#: to mount beneath; a real boot's /usr has a group of its own, and a read-only /sysroot.
_INIT = """
test -e /run/testbed/shared-peer-group || { mount --make-private /usr; mount --make-shared /usr; }
mount -o remount,bind,ro /sysroot
exec /usr/lib/systemd/systemd
"""


class Nspawn(Boot):
    """One boot in systemd-nspawn."""

    def ask_poweroff(self) -> None:
        """Ask for a clean shutdown."""
        os.kill(self.leader, _POWEROFF)

    def ask_reboot(self) -> None:
        """Ask for a clean reboot."""
        os.kill(self.leader, _REBOOT)

    def wants_reboot(self) -> bool:
        """Say, of a boot that ended, whether the machine asked to be started again."""
        return self.process.wait() == _EXIT_REBOOT

    def _prepare(self, stack: ExitStack) -> tuple[list[str], dict[str, str]]:
        root = stack.enter_context(mounted_disk(self.disk))
        # A second mount point: after the pivot, paths below `root` mean the deployment.
        boot = stack.enter_context(bind_mounted(root / "boot"))
        command = self._command(root, boot, deployment_of(root, choose_entry(root)))
        return command, {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}

    def _command(self, root: Path, boot: Path, deployment: str) -> list[str]:
        empty = self.directory / "empty"
        empty.touch()
        binds = [
            f"--bind={root}/ostree/deploy/{STATEROOT}/var:/var",
            f"--bind={boot}:/boot",
            f"--bind-ro={root}/usr:/usr",
            f"--bind-ro={empty}:/run/ostree-booted",
            "--bind-ro=/etc/resolv.conf:/run/testbed/resolv.conf",
        ]
        if self.shared_peer_group:
            binds.append(f"--bind-ro={empty}:/run/testbed/shared-peer-group")
        return [
            # A killed nspawn would leave its container running. As PID 1 of a namespace it takes all with it.
            "unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
            "systemd-nspawn", "--quiet", f"--directory={root}", f"--pivot-root={deployment}:/sysroot",
            *binds, f"--machine=testbed-{self.name}", f"--hostname={self.name}", "--register=no",
            "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only",
            f"--kill-signal={signal.SIGRTMIN + 3}", "/bin/sh", "-c", _INIT,
        ]  # fmt: skip

    def _wait_for_start(self, _stack: ExitStack) -> None:
        found: list[int] = []

        def look() -> bool:
            if self.process.poll() is not None:
                raise TestbedError(f"systemd-nspawn ended at once; see {self.directory}/console.log")
            nspawn = _children(str(self.process.pid))
            found[:] = [int(pid) for parent in nspawn for pid in _children(parent) if _is_systemd(pid)]
            return bool(found)

        wait_until(look, seconds=20, what="systemd starting in the machine")
        self.leader = found[0]


def _children(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []


def _is_systemd(pid: str) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return "Name:\tsystemd\n" in status and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(
            b"/usr/lib/systemd/systemd\0"
        )
    except (FileNotFoundError, ProcessLookupError):
        return False
