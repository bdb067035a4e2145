"""Maintainer scripts run here: bubblewrap around a build root (bwrap(1)).

The sandbox sees the build root as /, has its own pid, ipc, uts, mount and network namespaces, a read-only
/sys, and private /tmp and /run. Without /run/systemd/system no script believes it talks to the host's
systemd (debhelper's snippets test for it).
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from apt_ostree.system import process

#: What dpkg and maintainer scripts need to set owners, modes, file capabilities and users; nothing more.
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

#: What the scripts see, besides the base environment.
SCRIPT_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
    "TMPDIR": "/tmp",
    "INITRD": "No",  # keeps update-initramfs hooks quiet; the kernel is handled after all packages
    "RUNLEVEL": "1",
}

#: What sets or shows the host's kernel. Files of these may be written by any process with uid 0, capable or
#: not, and bwrap covers less of /proc than one would think.
_KERNEL_INTERFACES = (
    "/sys",
    "/proc/sys",
    "/proc/fs",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/driver",
    "/proc/sysrq-trigger",
)


def argv(root: Path, command: Sequence[str], *, read_only: Sequence[str | Path] = ()) -> list[str]:
    """Return the command line that runs `command` inside `root`.

    read_only: host paths that the sandbox sees at the same place, such as the package archive.
    """
    words = ["bwrap", "--bind", str(root), "/", "--dev", "/dev", "--proc", "/proc"]
    for interface in _KERNEL_INTERFACES:
        words += ["--ro-bind-try", interface, interface]
    words += ["--tmpfs", "/tmp", "--tmpfs", "/run", "--dir", "/run/lock"]
    for path in read_only:
        words += ["--ro-bind", str(path), str(path)]
    # A session of its own: nothing in it can type into the administrator's terminal (TIOCSTI).
    words += [
        "--new-session",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-net",
        "--die-with-parent",
    ]
    words += ["--hostname", "localhost", "--chdir", "/", "--cap-drop", "ALL"]
    for capability in _CAPABILITIES:
        words += ["--cap-add", capability]
    for name, value in SCRIPT_ENVIRONMENT.items():
        words += ["--setenv", name, value]
    return [*words, "--", *command]


def output_log(root: Path) -> Path:
    """Return the file beside `root` to which everything goes that programs in it print."""
    return root.with_name("output.log")


def announce(root: Path, what: str) -> None:
    """Write into the log of `root` what prints the lines that follow."""
    with contextlib.suppress(OSError), output_log(root).open("a") as log:
        log.write(f"--- {what}\n")


def output_of(root: Path, what: str) -> list[str]:
    """Return the lines of the log of `root` that follow an announcement."""
    try:
        text = output_log(root).read_text(errors="replace")
    except FileNotFoundError:
        return []
    return text.partition(f"--- {what}\n")[2].splitlines()


def run(root: Path, command: Sequence[str], *, what: str, timeout: float | None = None) -> None:
    """Run a command inside `root`; ExternalFailure when it fails. What it prints goes to `output_log`."""
    announce(root, f"{what}: {shlex.join(command)}")
    process.run(argv(root, command), what=what, timeout=timeout, log=output_log(root))
