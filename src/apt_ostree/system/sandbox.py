"""The sandbox for maintainer scripts: bubblewrap around a build root (bwrap(1)).

The sandbox has the build root as /, its own pid, ipc, uts, mount and network namespaces, a read-only /sys,
and private /tmp and /run. Without /run/systemd/system, scripts do not call systemd (debhelper's snippets
test for it). What capabilities do not cover, a filter of system calls does (`seccomp`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from apt_ostree.system import process, seccomp

#: The capabilities that dpkg and maintainer scripts need to set owners, modes, file capabilities and users.
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

#: The environment of scripts, in addition to process.BASE_ENVIRONMENT.
SCRIPT_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
    "TMPDIR": "/tmp",
    "INITRD": "No",  # disables update-initramfs hooks; the initramfs is made after all packages
    "RUNLEVEL": "1",
    "SYSTEMD_OFFLINE": "1",  # systemctl enables units and ignores all else, as in a chroot (systemctl(1))
}

#: Options of dpkg where it configures packages: what the administrator has changed stays, and .dpkg-dist lies
#: beside it. ucf(1) reads them in DPKG_FORCE; without confdef, it would keep what nobody has changed, too.
KEEP_CHANGED = ("--force-confdef", "--force-confold")

#: Interfaces of the host's kernel. Any process with uid 0 may write their files, even without capabilities,
#: and bwrap protects only some of those in /proc.
_KERNEL_INTERFACES = (
    "/sys",
    "/proc/sys",
    "/proc/fs",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/driver",
    "/proc/sysrq-trigger",
)

#: What they tell of the host is nothing for scripts: files, and directories, which not every machine has.
_HIDDEN_FILES = ("/proc/kcore", "/proc/keys", "/proc/sched_debug", "/proc/timer_list", "/proc/vmallocinfo")
_HIDDEN_DIRECTORIES = ("/sys/fs/bpf", "/sys/fs/pstore", "/sys/kernel/debug", "/sys/kernel/tracing")

#: The descriptor of the filter: a number that libapt, which passes dpkg another one, does not come to.
_FILTER = 250

#: CAP_NET_ADMIN (capabilities(7)).
_NET_ADMIN = 12

#: The journal's socket for syslog(3).
_LOG_SOCKET = "/run/systemd/journal/dev-log"


def argv(
    root: Path,
    command: Sequence[str],
    *,
    read_only: Sequence[str | Path] = (),
    hostname: str = "localhost",
) -> list[str]:
    """Return the command line that runs `command` inside `root`; its filter is written beside that.

    read_only: host paths that are bound to the same paths in the sandbox, such as the package archive.
    hostname: the name that scripts see.
    """
    arguments = [*_filtered(root), "--bind", str(root), "/", "--dev", "/dev", "--proc", "/proc"]
    for interface in _KERNEL_INTERFACES:
        arguments += ["--ro-bind-try", interface, interface]
    for path in filter(os.path.exists, _HIDDEN_FILES):
        arguments += ["--ro-bind", "/dev/null", path]  # which cannot be opened there
    for path in filter(os.path.isdir, _HIDDEN_DIRECTORIES):
        arguments += ["--tmpfs", path, "--remount-ro", path]
    for shared in ("/tmp", "/dev/shm"):
        arguments += ["--perms", "1777", "--tmpfs", shared]
    arguments += ["--tmpfs", "/run", "--dir", "/run/lock"]
    arguments += ["--ro-bind-try", _LOG_SOCKET, "/dev/log"]  # logger(1) fails without it
    for shown in read_only:
        arguments += ["--ro-bind", str(shown), str(shown)]
    # In a new session, no process can insert input into the administrator's terminal (TIOCSTI).
    arguments += [
        "--new-session",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--die-with-parent",
    ]
    arguments += ["--hostname", hostname, "--chdir", "/", "--cap-drop", "ALL"]
    for capability in _CAPABILITIES:
        arguments += ["--cap-add", capability]
    for name, value in SCRIPT_ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--", *command]


def _filtered(root: Path) -> list[str]:
    """Return the beginning of a command line that gives bwrap the filter and a network namespace."""
    path = root.with_name("seccomp")
    seccomp.write_filter(path)
    return [
        "bash",
        "-c",
        f'exec {_FILTER}<"$0" && exec "$@"',
        str(path),
        *_network(),
        "--seccomp",
        str(_FILTER),
    ]


def _network() -> list[str]:
    """Return the beginning of a command line that gives bwrap a network namespace of its own.

    It sets up the loopback device, for which services of a container may lack the right.
    """
    return ["bwrap", "--unshare-net"] if process.has_capability(_NET_ADMIN) else ["unshare", "--net", "bwrap"]


def output_log(root: Path) -> Path:
    """Return the file beside `root` that gets the output of all programs in it."""
    return root.with_name("output.log")


def announce(root: Path, what: str) -> None:
    """Write a heading into the log of `root`, for the lines that follow."""
    with contextlib.suppress(OSError), output_log(root).open("a") as log:
        log.write(f"--- {what}\n")


def output_of(root: Path, what: str) -> list[str]:
    """Return the lines of the log of `root` after a heading."""
    try:
        text = output_log(root).read_text(errors="replace")
    except FileNotFoundError:
        return []
    return text.partition(f"--- {what}\n")[2].splitlines()


def run(
    root: Path,
    command: Sequence[str],
    *,
    what: str,
    timeout: float | None = None,
    read_only: Sequence[str | Path] = (),
    hostname: str = "localhost",
) -> None:
    """Run a command inside `root`; its output is appended to `output_log`.

    ExternalFailure is raised if it fails. timeout: in seconds. read_only, hostname: as for `argv`.
    """
    announce(root, f"{what}: {shlex.join(command)}")
    command_line = argv(root, command, read_only=read_only, hostname=hostname)
    process.run(command_line, what=what, timeout=timeout, log=output_log(root))
