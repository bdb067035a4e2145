"""A virtual machine that starts as hardware does: firmware, boot loader, kernel, all from one disk.

The machines of the test bed are given the kernel by QEMU; this one has to find it.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed_lib import agent
from testbed_lib.common import ENVIRONMENT, TestbedError, wait_until
from testbed_lib.kernel import die_with_parent

#: Debian's OVMF, and what it stores.
_UEFI = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
#: The same with Secure Boot on, and the keys that most machines are sold with.
_SECURE = Path("/usr/share/OVMF/OVMF_CODE_4M.ms.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
_MEMORY = "2048"
#: What the firmware tells systemd, see systemd.system-credentials(7).
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKc4 fx"
_BOOT_SECONDS = 1200
#: What the menu of GRUB says, and what moves the choice in it.
_MENU, _DOWN = "highlighted entry will be executed", b"\x0e"


class FirmwareMachine:
    """One machine, until the `with` block ends; a Host can use it as one of the test bed."""

    def __init__(self, disk: Path, directory: Path, *, uefi: bool, secure_boot: bool = False) -> None:
        self.name = f"firmware-{'uefi' if uefi else 'bios'}"
        self.disk, self.directory, self.uefi, self.secure_boot = disk, directory, uefi, secure_boot
        self.boot_id = ""

    def __enter__(self) -> FirmwareMachine:
        self.directory.mkdir()
        with (self.directory / "console.log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
                cwd=self.directory,
                preexec_fn=lambda: die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one thread
            )
        try:
            self.wait_for_boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _command(self) -> list[str]:
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-accel", "tcg", "-machine", "q35,i8042=off,sata=off,smbus=off,usb=off,vmport=off",
            "-cpu", "max", "-smp", "1", "-m", _MEMORY, "-serial", "stdio",
            "-drive", f"file={self.disk},format=raw,if=none,id=disk,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=disk,bootindex=1", "-device", "virtio-rng-pci",
            "-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network,romfile=",
            "-device", f"virtio-serial-pci,max_ports={agent.CHANNELS + 1}",
            "-smbios", f"type=11,value=io.systemd.credential:ssh.authorized_keys.root={KEY}",
        ]  # fmt: skip
        for number in range(agent.CHANNELS):
            command += ["-chardev", f"socket,id=agent{number},path=agent{number},server=on,wait=off"]
            command += ["-device", f"virtserialport,chardev=agent{number},name=testbed.{number}"]
        if self.uefi:
            code, variables = _SECURE if self.secure_boot else _UEFI
            own = self.directory / "variables.fd"
            own.write_bytes(variables.read_bytes())
            command += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"]
            command += ["-drive", f"if=pflash,format=raw,unit=1,file={own}"]
        if self.secure_boot:  # this build keeps its variables from the system by means of SMM
            command += ["-machine", "smm=on", "-global", "ICH9-LPC.disable_s3=1"]
            command += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        return command

    def exec(self, *argv: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command as root; see testbed_lib.machine.Machine.exec."""
        check = streams.pop("check", False)
        done = agent.run_command(self.directory, argv, **streams)
        if check and done.returncode:
            raise TestbedError(f"exit code {done.returncode} from: {' '.join(argv)}\n{done.stderr!r}")
        return done

    def wait_for_boot(self) -> None:
        """Wait until the machine has booted once more, and has settled."""
        wait_until(self._has_booted, seconds=_BOOT_SECONDS, what=f"{self.name} booting")
        # The agent answers before systemd has a bus, and then the command does not wait.
        wait_until(self._has_settled, seconds=_BOOT_SECONDS, what=f"{self.name} settling")

    def _has_settled(self) -> bool:
        done = self.exec("systemctl", "is-system-running", "--wait", timeout=_BOOT_SECONDS)
        return done.stdout.decode().strip() in {"running", "degraded"}

    def _has_booted(self) -> bool:
        if self.process.poll() is not None:
            raise TestbedError(f"QEMU ended\n{self.console()}")
        boot_id = self._ask(["cat", "/proc/sys/kernel/random/boot_id"])
        if boot_id in ("", self.boot_id):
            return False
        self.boot_id = boot_id
        return True

    def _ask(self, argv: Sequence[str]) -> str:
        """Return what a command prints; "" if the machine does not answer."""
        try:
            return agent.run_command(self.directory, argv, timeout=30, patience=5).stdout.decode()
        except (TestbedError, OSError):
            return ""

    def reboot(self, *, entry: int = 0) -> None:
        """Reboot; the firmware starts again. entry: the one to choose in the menu; 0: its timeout decides."""
        shown = self.console().count(_MENU)
        # Later, so that the agent can say that the command has ended: nobody else tells the other side.
        later = ("--on-active=5", "--timer-property=AccuracySec=100ms")
        self.exec("systemd-run", "--quiet", *later, "systemctl", "reboot")
        if entry:
            wait_until(
                lambda: self.console().count(_MENU) > shown, seconds=_BOOT_SECONDS, what="the boot menu"
            )
            assert self.process.stdin
            self.process.stdin.write(_DOWN * entry + b"\r")
            self.process.stdin.flush()
        self.wait_for_boot()

    def console(self) -> str:
        """Return what the machine has printed."""
        return (self.directory / "console.log").read_bytes().decode(errors="replace")
