"""Where things live in a tree: one list for composing, layering and the running system.

A tree is what an OSTree commit holds: `/usr`, with the configuration's defaults in `/usr/etc`, and empty
mount points around it. Paths here are relative to the tree's root unless they begin with a slash.
"""

from __future__ import annotations

#: Real, empty directories at the top of a tree (mount points), with their mode.
TOP_DIRECTORIES: dict[str, int] = {
    "boot": 0o755,
    "dev": 0o755,
    "proc": 0o555,
    "run": 0o755,
    "sys": 0o555,
    "sysroot": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
}

#: Links at the top of a tree: state lives under /var, the repository under /sysroot.
TOP_LINKS: dict[str, str] = {
    "home": "var/home",
    "media": "run/media",
    "mnt": "var/mnt",
    "opt": "var/opt",
    "ostree": "sysroot/ostree",
    "root": "var/roothome",
    "srv": "var/srv",
}

#: The targets of TOP_LINKS that boot must create: path, mode.
STATE_DIRECTORIES: dict[str, int] = {
    "/var/home": 0o755,
    "/var/mnt": 0o755,
    "/var/opt": 0o755,
    "/var/roothome": 0o700,
    "/var/srv": 0o755,
    "/run/media": 0o755,
}

SYSIMAGE = "usr/lib/sysimage"

#: State that describes /usr and therefore travels with it: path under /var -> path in the tree.
#: dpkg's database then follows every deployment, live switch and rollback by itself.
SYSIMAGE_LINKS: dict[str, str] = {
    "var/lib/dpkg": f"{SYSIMAGE}/dpkg",
    "var/lib/ucf": f"{SYSIMAGE}/ucf",
    "var/lib/apt/extended_states": f"{SYSIMAGE}/apt/extended_states",
    "var/cache/debconf": f"{SYSIMAGE}/debconf",
    "var/lib/systemd/deb-systemd-helper-enabled": f"{SYSIMAGE}/systemd/deb-systemd-helper-enabled",
    "var/lib/systemd/deb-systemd-helper-masked": f"{SYSIMAGE}/systemd/deb-systemd-helper-masked",
    "var/lib/systemd/deb-systemd-user-helper-enabled": f"{SYSIMAGE}/systemd/deb-systemd-user-helper-enabled",
    "var/lib/systemd/deb-systemd-user-helper-masked": f"{SYSIMAGE}/systemd/deb-systemd-user-helper-masked",
}

#: dpkg's database in a tree.
DPKG_ADMINDIR = f"{SYSIMAGE}/dpkg"

#: Written by us into a tree; systemd acts on them at boot and the live step acts on them at once.
TMPFILES_LAYOUT = "usr/lib/tmpfiles.d/00-apt-ostree-layout.conf"
TMPFILES_VAR = "usr/lib/tmpfiles.d/apt-ostree-var.conf"
SYSUSERS = "usr/lib/sysusers.d/apt-ostree.conf"
FACTORY = "usr/share/factory"

KERNEL_MODULES = "usr/lib/modules"
#: Arguments for dracut that the treefile chose, one a line: layering makes initramfs images the same way.
DRACUT_ARGUMENTS = "usr/lib/apt-ostree/dracut-arguments"
#: Kernel arguments of the tree, in bootc's format.
KERNEL_ARGUMENTS = "usr/lib/bootc/kargs.d/10-apt-ostree.toml"
#: Metadata keys of a commit.
META_PREFIX = "apt-ostree."
META_PACKAGES = "apt-ostree.packages"  # a(sss): name, version, architecture, sorted
META_BASE = "apt-ostree.base-checksum"  # s: the base commit of a layered one
META_TREEFILE = "apt-ostree.treefile"  # s: canonical JSON of the treefile
META_SOURCES = "apt-ostree.sources"  # as: "origin suite component version date" lines, sorted
META_VERSION = "version"  # s: ostree's own key
META_INPUTS = "apt-ostree.inputs"  # s: SHA-256 over treefile, added files and package list of a compose
META_KERNEL_ARGUMENTS = "apt-ostree.kernel-arguments"  # as: in their order
