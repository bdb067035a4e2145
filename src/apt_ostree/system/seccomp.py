"""The system calls that maintainer scripts may not use, as a filter for bwrap (seccomp(2), bwrap(1)).

Most of them fail for want of a capability as well. Without one, a script could still make a user namespace,
in which it has all of them, and reach code of the kernel that is for root; and the kernel's keys
(keyrings(7)) belong to a user and not to a namespace. A call fails as for want of a capability, with EPERM.

Uses libseccomp through ctypes: it knows the calls' numbers on every architecture.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from pathlib import Path

from apt_ostree.errors import ExternalFailure

_DENIED = (
    # mounts and namespaces
    "mount", "umount", "umount2", "pivot_root", "setns", "fsopen", "fsconfig", "fsmount", "fspick",
    "move_mount", "open_tree", "mount_setattr", "open_by_handle_at",
    # keys
    "add_key", "keyctl", "request_key",
    # programs in the kernel, and its memory
    "bpf", "perf_event_open", "userfaultfd", "iopl", "ioperm", "lookup_dcookie",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
    # the machine
    "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "vhangup",
    "settimeofday", "stime", "clock_settime", "clock_settime64", "sethostname", "setdomainname",
)  # fmt: skip
#: The C library tries clone(2) then, whose flags a filter sees.
_ABSENT = ("clone3",)
_WITH_FLAGS = ("clone", "unshare")
_CLONE_NEWUSER = 0x10000000

#: Architectures whose programs the kernel runs as well: `uname -m` -> names of libseccomp.
_COMPATIBLE = {"x86_64": ("x86", "x32"), "aarch64": ("arm",)}

# seccomp.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_MASKED_EQUAL = 7


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: the argument's number, how it is compared, and with what."""

    _fields_ = (
        ("arg", ctypes.c_uint), ("op", ctypes.c_int), ("mask", ctypes.c_uint64), ("value", ctypes.c_uint64)
    )  # fmt: skip


def write_filter(path: Path) -> None:
    """Write the filter, in the form that the kernel takes, to a file."""
    library = _load()
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise ExternalFailure("cannot make a filter of system calls")
    try:
        for name in _COMPATIBLE.get(platform.machine(), ()):
            _check(library.seccomp_arch_add(context, library.seccomp_arch_resolve_name(name.encode())))
        for name in _DENIED:
            _deny(library, context, name, errno.EPERM)
        for name in _ABSENT:
            _deny(library, context, name, errno.ENOSYS)
        for name in _WITH_FLAGS:
            _deny(library, context, name, errno.EPERM, flags=_CLONE_NEWUSER)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _check(library.seccomp_export_bpf(context, descriptor))
        finally:
            os.close(descriptor)
    finally:
        library.seccomp_release(context)


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise ExternalFailure(
            f"cannot make a filter of system calls: {error}", hint="install the package libseccomp2"
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    for name in ("seccomp_release", "seccomp_arch_add", "seccomp_export_bpf", "seccomp_rule_add_array"):
        getattr(library, name).argtypes = _ARGUMENTS[name]
    return library


_ARGUMENTS = {
    "seccomp_release": [ctypes.c_void_p],
    "seccomp_arch_add": [ctypes.c_void_p, ctypes.c_uint32],
    "seccomp_export_bpf": [ctypes.c_void_p, ctypes.c_int],
    "seccomp_rule_add_array": [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison)
    ],
}  # fmt: skip


def _deny(library: ctypes.CDLL, context: int, name: str, number: int, *, flags: int = 0) -> None:
    """Have a system call fail with an error; flags: only if its first argument has all of these."""
    call = library.seccomp_syscall_resolve_name(name.encode())
    if (
        call == -1
    ):  # a call that this libseccomp does not know yet; other numbers below 0 are of other machines
        return
    comparisons = (_Comparison * 1)(_Comparison(0, _MASKED_EQUAL, flags, flags))
    count = 1 if flags else 0
    _check(library.seccomp_rule_add_array(context, _ERRNO | number, call, count, comparisons))


def _check(result: int) -> None:
    if result < 0:
        raise ExternalFailure(f"cannot make a filter of system calls: {os.strerror(-result)}")
