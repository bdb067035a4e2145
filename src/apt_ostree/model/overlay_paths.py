"""The paths of the root file system that the rules for overlays (overlay_rules) distinguish.

Each predicate takes a path relative to the root, and returns a match or None.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from apt_ostree.model import accounts, layout

_TRIPLET = r"[a-z0-9_]+-linux-(?:gnu|musl)[a-z0-9_]*"
_LIBS = rf"usr/lib(?:32|64|x32)?(?:/{_TRIPLET})?"
_UNIT_DIRS = r"(?:usr/(?:local/)?lib|etc)/systemd/(?:system|user)"


def _any(*patterns: str) -> Callable[[str], re.Match[str] | None]:
    """Return the predicate of paths that match one of the patterns completely.

    The patterns are compiled at the first path: most commands import this module and judge none.
    """
    compiled = functools.cache(lambda: re.compile(r"(?:" + r"|".join(patterns) + r")\Z", re.DOTALL))
    return lambda path: compiled().match(path)


#: Directories that no overlay may remove or replace.
is_main_directory = _any(
    r"usr", r"etc", r"usr/s?bin", _LIBS, r"usr/libexec", r"usr/share", r"usr/share/(?:dbus-1|polkit-1)",
    r"usr/lib/(?:systemd(?:/system)?|udev|dbus-1\.0|dpkg|apt|python3|tmpfiles\.d|sysusers\.d)",
    r"usr/lib/python3/dist-packages", rf"usr/lib/{_TRIPLET}/(?:systemd|security)",
)  # fmt: skip
#: Paths that no overlay may change or add to: kernel modules, databases of packages, files for booting and of
#: apt-ostree in the image, account files, and the identity of the machine. fstab is allowed.
is_closed = _any(
    rf"(?:{layout.KERNEL_MODULES}|{layout.SYSIMAGE}|usr/lib/ostree[^/]*|usr/lib/apt-ostree|etc/ostree)(?:/.*)?",
    rf"etc/(?:{'|'.join((*accounts.FILES, *accounts.SUBORDINATE_IDS))})(?:[-+]|\.lock)?(?:/.*)?",
    r"etc/(?:machine-id|\.updated|\.pwd\.lock|security/opasswd)(?:/.*)?|usr/\.updated",
)
#: What shells and setuid programs load.
_PRIVILEGED = r"(?:c|m|crypt|pam|pamc|pam_misc|systemd|selinux|cap|mount|blkid|audit|nss_[^/]+)"
is_essential_program = _any(
    r"usr/bin/(?:sh|dash|bash)", r"usr/sbin/init", r"usr/lib/systemd/systemd(?:-executor)?",
    rf"{_LIBS}/ld(?:-[^/]*)?\.so(?:\.[^/]*)?",
)  # fmt: skip
#: Libraries of PID 1 and the shell. Files with version numbers after the soname are included: without them,
#: the symlink of the soname dangles.
is_essential_library = _any(
    rf"{_LIBS}/lib(?:c|m|crypt|pam|systemd|selinux|cap|mount|blkid)\.so\.\d+(?:\.\d+)*",
    rf"{_LIBS}/libc-[\d.]+\.so",
    rf"usr/lib/(?:{_TRIPLET}/)?systemd/libsystemd-(?:core|shared)-[^/]+\.so",
)  # fmt: skip
is_for_recovery = _any(
    r"usr/(?:local/)?s?bin/(?:(?:apt-)?ostree|python3(?:\.\d+)?|dpkg(?:-query|-divert|-deb)?|ldconfig|systemctl"
    r"|systemd-(?:run|sysusers|tmpfiles))", r"usr/lib/python3[^/]*",
    rf"{_LIBS}/libostree-1\.so[^/]*",
    r"usr/(?:local/)?lib/python3[^/]*/(?:dist|site)-packages/apt_ostree(?:\.py|/.*)?",
    rf"{_UNIT_DIRS}/(?:[^/]+\.(?:wants|requires)/)?(?:apt-ostree|ostree-)[^/]*(?:/.*)?",
    r"usr/lib/systemd/system-generators/(?:apt-)?ostree[^/]*",
    r"(?:usr/share|etc)/(?:dbus-1/[^/]+|polkit-1/actions)/org\.debian\.aptostree[^/]*",
    r"etc/apt-ostree(?:/apt-ostree\.conf(?:\.d(?:/.*)?)?)?",
)  # fmt: skip
is_needed_to_log_in = _any(
    r"etc/pam\.d(?:/(?:common-(?:auth|account|password|session|session-noninteractive)|other|login))?",
    r"etc/(?:nsswitch\.conf|sudoers|security|systemd|systemd/system|ssh|ssh/sshd_config)",
    r"(?:etc|usr/lib)/systemd/system/(?:(?:sysinit|basic|multi-user|default|local-fs|sockets)\.target"
    r"|(?:dbus|systemd-journald|systemd-logind|systemd-udevd)\.(?:service|socket))",
)  # fmt: skip
#: What a new file there takes effect with, too: it comes before that of the base.
is_privileged_place = _any(
    r"(?:etc|usr/lib)/pam\.d(?:/.*)?", r"etc/pam\.conf", r"etc/ld\.so\.(?:conf|cache|conf\.d(?:/.*)?)",
    rf"usr/local/lib(?:/{_TRIPLET})?/lib{_PRIVILEGED}\.so[^/]*",
    rf"(?:usr/local/lib|{_LIBS})/(?:{_TRIPLET}/)?glibc-hwcaps/.*/lib{_PRIVILEGED}\.so[^/]*",
    r"etc/(?:sudo\.conf|sudoers)", r"usr/(?:lib|libexec)/sudo(?:/.*)?",
)  # fmt: skip
is_privileged_code = _any(
    r"etc/security/.*", r"usr/share/pam(?:-configs)?/.*", rf"{_LIBS}/security(?:/.*)?",
    rf"{_LIBS}/lib{_PRIVILEGED}\.so[^/]*", r"etc/nsswitch\.conf",
    r"usr/bin/(?:rbash|zsh\d?|fish|ksh\w*|mksh|tcsh|csh|busybox|login)", r"usr/sbin/(?:agetty|sulogin|sshd)",
    r"usr/lib/polkit-1/polkitd|usr/libexec/polkitd",
)  # fmt: skip
is_code = _any(r"usr/(?:local/)?(?:s?bin|games|libexec|lib(?:32|64|x32)?)/.*")
is_hidden_program = _any(r"usr/(?:local/)?(?:s?bin|games)/\.[^/]*")
is_preloaded = _any(
    r"etc/ld\.so\.preload", r"etc/perl/sitecustomize\.pl",
    r"(?:usr/(?:local/)?lib|etc)/python3[^/]*/(?:(?:dist|site)-packages/)?(?:site|user)customize(?:\.py|/.*)",
    rf"(?:usr/local/lib|{_LIBS})/glibc-hwcaps/.*/(?:ld-[^/]*\.so[^/]*|lib(?:c|m|crypt|pam)\.so[^/]*)",
)  # fmt: skip
is_secret = _any(r"(?:usr/)?etc/g?shadow-?", r"etc/ssh/ssh_host_[^/]*_key", r"etc/krb5\.keytab")
is_private = _any(
    r"etc/ssl/private/.*", r"etc/ssh/ssh_host_[^/]*_key", r"etc/krb5\.keytab", r"etc/wireguard/[^/]*\.conf",
    r"etc/NetworkManager/system-connections/.*",
)  # fmt: skip

#: Permitted targets of symlinks: the tree, state and runtime data of services (/var, /run), and the
#: administrator's files (/opt, /srv). Not /home, /root and /tmp, where other users could create the target.
is_link_target = _any(
    r"(?:usr|etc|var|run|opt|srv)(?:/.*)?", r"dev/(?:null|stdout|stderr)",
    r"proc/(?:(?:self/)?(?:mounts|mountinfo|fd/[12])|net/pnp)",
)  # fmt: skip
is_writable_place = _any(
    r"(?:var/(?:tmp|lock|crash|home|roothome|mnt)|(?:var/)?run/(?:lock|user|media))(?:/.*)?"
)

#: Files that root runs, loads or trusts implicitly. Programs of users belong in /usr/bin, the last directory
#: of root's PATH, where they override no other program.
is_run_by_root = _any(
    r"usr/(?:sbin|local/s?bin|local/etc|local/lib)(?:/.*)?", r"usr/local(?:/share)?",
    r"usr/lib/(?:systemd|udev|pam\.d|security|sudo|dpkg|apt|dracut|kernel|NetworkManager|cron|initramfs-tools|lsb"
    r"|netplan|girepository-1\.0|polkit-1|policykit-1|dbus-1\.0|sasl2|firmware|openssh|git-core|needrestart|bootc"
    r"|locale|ssl|[^/]+\.d)(?:/.*)?",
    rf"usr/lib/{_TRIPLET}/(?:security|systemd|gconv|sasl2|gio|perl[^/]*|polkit-1|udisks2|NetworkManager|engines[^/]*"
    r"|ossl-modules|girepository-1\.0|krb5|pkcs11|audit)(?:/.*)?",
    rf"{_LIBS}/(?:[^/]*\.so(?:\.[^/]*)?|glibc-hwcaps(?:/.*)?)", r"usr/lib/python3[^/]*/(?!dist-packages/).*",
    r"usr/lib/python3/dist-packages/(?:[^/]*\.pth|(?:site|user)customize(?:[./].*)?)",
    r"usr/share/(?:dbus-1|polkit-1|pam|pam-configs|initramfs-tools|bug|apport|ucf|debconf|keyrings|ca-certificates"
    r"|factory|bash-completion|update-notifier|usb_modeswitch|perl[^/]*|python3|user-tmpfiles\.d|p11-kit"
    r"|containers|bootc|sudo|apparmor[^/]*|wireplumber|openssh)(?:/.*)?",
    r"usr/(?:local/)?share/(?:zsh/(?:site-functions|vendor-[^/]+)|fish/vendor_[^/]+|keyrings|perl|ca-certificates"
    r"|dbus-1|polkit-1)(?:/.*)?",
)  # fmt: skip
