"""Boots a disk image in QEMU without hardware virtualisation, with the kernel a boot loader would take."""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import ExitStack

from testbed_lib.agent import CHANNELS, run_command
from testbed_lib.boot import Boot
from testbed_lib.bootentry import choose_entry
from testbed_lib.common import TestbedError, wait_until
from testbed_lib.image import mounted_disk
from testbed_lib.store import make_scratch

#: In MiB.
_MEMORY = os.environ.get("APT_OSTREE_TESTBED_MEMORY", "2048")
#: Without the devices that the guest's udev would only load drivers for.
_MACHINE = "q35,i8042=off,sata=off,smbus=off,usb=off,vmport=off"
#: What makes an emulated boot shorter: no mitigations, little on the emulated serial port, no BPF programs to
#: compile (Debian's security modules without `bpf`), and nothing done anew because it is the first boot.
_ARGUMENTS = " ".join(
    (
        "console=ttyS0 quiet mitigations=off lsm=landlock,lockdown,yama,apparmor net.ifnames=0",
        "fsck.mode=skip module_blacklist=kvm,kvm_amd,drm systemd.show_status=error systemd.getty_auto=0",
        "systemd.mask=ldconfig.service systemd.mask=modprobe@drm.service",
        "systemd.mask=modprobe@efi_pstore.service systemd.mask=systemd-pcrphase.service",
        "systemd.mask=getty@tty1.service",
        # On a busy machine, udev comes to a disk later than systemd usually waits (systemd 254 and later).
        "systemd.default_device_timeout_sec=900",
    )
)


class Qemu(Boot):
    """One boot in QEMU; each boot has the kernel and initramfs of the entry it follows."""

    def ask_poweroff(self) -> None:
        """Ask for a clean shutdown."""
        self._ask("poweroff")

    def ask_reboot(self) -> None:
        """Ask for a clean reboot."""
        self._ask("reboot")

    def wants_reboot(self) -> bool:
        """Say, of a boot that ended, whether the machine asked to be started again."""
        self.process.wait()
        events = self._monitor_file.read().splitlines()
        return any(json.loads(line).get("data", {}).get("reason") == "guest-reset" for line in events)

    def _ask(self, verb: str) -> None:
        run_command(self.directory, ["systemctl", "--no-block", verb], channels=[0])

    def _prepare(self, stack: ExitStack) -> tuple[list[str], dict[str, str]]:
        scratch = make_scratch()
        stack.callback(shutil.rmtree, scratch)
        with mounted_disk(self.disk) as disk:
            entry = choose_entry(disk)
            shutil.copy(f"{disk}/boot{entry.kernel}", scratch / "kernel")
            shutil.copy(f"{disk}/boot{entry.initrd}", scratch / "initrd")
        (self.directory / "monitor").unlink(missing_ok=True)
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            # One processor: two in one thread wait for each other (rcu stalls), and with a thread each, the
            # kernel now and then met a breakpoint of its own patching (int3) afterwards, and panicked.
            "-accel", "tcg", "-machine", _MACHINE, "-cpu", "max", "-smp", "1", "-m", _MEMORY,
            "-kernel", f"{scratch}/kernel", "-initrd", f"{scratch}/initrd",
            "-append", f"{entry.options} {_ARGUMENTS}",
            "-serial", "stdio",
            "-chardev", "socket,id=monitor,path=monitor,server=on,wait=off", "-mon", "monitor,mode=control",
            # A killed QEMU has no cache of its own to lose: what the guest's disk acknowledged is in the
            # file, whatever the mode. So the mode without any fsync is as true a power cut as the others.
            "-drive", f"file={self.disk},format=raw,if=none,id=disk,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=disk",
            "-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network,romfile=",
            "-device", "virtio-rng-pci",
            "-device", f"virtio-serial-pci,max_ports={CHANNELS + 1}",
        ]  # fmt: skip
        for number in range(CHANNELS):
            (self.directory / f"agent{number}").unlink(missing_ok=True)
            command += ["-chardev", f"socket,id=agent{number},path=agent{number},server=on,wait=off"]
            command += ["-device", f"virtserialport,chardev=agent{number},name=testbed.{number}"]
        return command, {}

    def _wait_for_start(self, stack: ExitStack) -> None:
        self._monitor = stack.enter_context(socket.socket(socket.AF_UNIX))
        wait_until(self._try_connect, seconds=20, what="QEMU starting")
        self._monitor_file = stack.enter_context(self._monitor.makefile("rw"))
        self._monitor_file.readline()  # its greeting
        self._monitor_file.write('{"execute": "qmp_capabilities"}\n')
        self._monitor_file.flush()

    def _try_connect(self) -> bool:
        if self.process.poll() is not None:
            raise TestbedError(f"QEMU ended at once; see {self.directory}/console.log")
        try:
            self._monitor.connect("monitor")  # the guardian stands in the machine's directory
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True
