"""The layout of a commit, for composing, layering and the running system.

A commit holds a tree, which is `/usr` with the defaults of the configuration in `/usr/etc`, and empty mount
points around it. Paths are relative to the root of the commit unless they begin with a slash.
"""

from __future__ import annotations

#: Empty directories (mount points) in the root of a commit -> mode.
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

#: Symlinks in the root of a commit -> target: state is in /var, the repository in /sysroot.
TOP_LINKS: dict[str, str] = {
    "home": "var/home",
    "media": "run/media",
    "mnt": "var/mnt",
    "opt": "var/opt",
    "ostree": "sysroot/ostree",
    "root": "var/roothome",
    "srv": "var/srv",
}
#: What is in the root of any tree, and of a build root, where /usr/etc is /etc.
TOP_NAMES = frozenset({*TOP_DIRECTORIES, *TOP_LINKS, "usr", "etc", "bin", "sbin", "lib", "lib64"})

#: The administrator's own files below /usr are the machine's: path in the tree -> target of its symlink.
USR_LOCAL = ("usr/local", "../var/usrlocal")

#: Targets of TOP_LINKS that have to be created at boot -> mode.
STATE_DIRECTORIES: dict[str, int] = {
    "/var/home": 0o755,
    "/var/mnt": 0o755,
    "/var/opt": 0o755,
    "/var/roothome": 0o700,
    "/var/srv": 0o755,
    "/var/usrlocal": 0o755,
    "/run/media": 0o755,
}

SYSIMAGE = "usr/lib/sysimage"

#: State that describes /usr and therefore belongs to the tree: path in /var -> path in the tree. So dpkg's
#: database always matches /usr, also after a live switch or a rollback.
SYSIMAGE_LINKS: dict[str, str] = {
    "var/lib/dpkg": f"{SYSIMAGE}/dpkg",
    "var/lib/ucf": f"{SYSIMAGE}/ucf",
    "var/lib/apt/extended_states": f"{SYSIMAGE}/apt/extended_states",
    "var/lib/systemd/deb-systemd-helper-enabled": f"{SYSIMAGE}/systemd/deb-systemd-helper-enabled",
    "var/lib/systemd/deb-systemd-helper-masked": f"{SYSIMAGE}/systemd/deb-systemd-helper-masked",
    "var/lib/systemd/deb-systemd-user-helper-enabled": f"{SYSIMAGE}/systemd/deb-systemd-user-helper-enabled",
    "var/lib/systemd/deb-systemd-user-helper-masked": f"{SYSIMAGE}/systemd/deb-systemd-user-helper-masked",
}

#: dpkg's database in a tree.
DPKG_ADMINDIR = f"{SYSIMAGE}/dpkg"

#: Files that we write into a tree, for systemd at boot and for live changes.
TMPFILES_LAYOUT = "usr/lib/tmpfiles.d/00-apt-ostree-layout.conf"
TMPFILES_VAR = "usr/lib/tmpfiles.d/apt-ostree-var.conf"
SYSUSERS = "usr/lib/sysusers.d/apt-ostree.conf"
#: Accounts of removed packages, whose state stays; relative to /etc.
REMOVED_ACCOUNTS = "sysusers.d/apt-ostree-removed.conf"
FACTORY = "usr/share/factory"
#: debconf's answers. They are the machine's, and packages are configured with them (debconf(7)).
ANSWERS = "var/cache/debconf"
#: The manifest of what the tree gives to /var, see model.seeds.
SEEDS = f"{SYSIMAGE}/apt-ostree/seeds.json"
#: The packages that each machine configures itself, see model.identities.
DEFERRED = f"{SYSIMAGE}/apt-ostree/deferred.json"
#: What seems to belong to one machine and all are to have alike: patterns of paths, one per line.
SHARED = f"{SYSIMAGE}/apt-ostree/shared-state"
#: The ids of accounts that the next composed tree keeps, see model.account_ids.
ACCOUNT_IDS = f"{SYSIMAGE}/apt-ostree/account-ids.conf"

#: What packages install in /opt is here in a tree; /var/opt has links to it.
OPT = "usr/lib/opt"

KERNEL_MODULES = "usr/lib/modules"
#: Beside a kernel's modules: its initramfs, and the paths that this contains, one per line.
INITRAMFS = "initramfs.img"
INITRAMFS_LIST = "initramfs.list"
#: Beside it: a digest of what it was made of, see core.build.initramfs_state.
INITRAMFS_INPUTS = "initramfs.inputs"
#: Beside it: its own size in bytes, if an archive with files of the machine's /etc follows it in the image.
INITRAMFS_SIZE = "initramfs.size"
DRACUT_MODULES = "usr/lib/dracut/modules.d"
#: Arguments for dracut from the treefile, one per line, for the initramfs images that layering makes.
DRACUT_ARGUMENTS = "usr/lib/apt-ostree/dracut-arguments"
#: Kernel arguments of the tree, in bootc's format.
KERNEL_ARGUMENTS = "usr/lib/bootc/kargs.d/10-apt-ostree.toml"
#: Metadata keys of a commit.
META_PACKAGES = "apt-ostree.packages"  # a(sss): name, version, architecture, sorted
META_BASE = "apt-ostree.base-checksum"  # s: the base commit of a layered one
META_OVERLAID = "apt-ostree.overlaid"  # b: whether it is a tree with overlays, made for a view
META_TREEFILE = "apt-ostree.treefile"  # s: canonical JSON of the treefile
META_SOURCES = "apt-ostree.sources"  # as: "origin suite component version date" lines, sorted
META_VERSION = "version"  # s: ostree's own key
META_INPUTS = "apt-ostree.inputs"  # s: SHA-256 over treefile, added files and package list of a compose
META_KERNEL_ARGUMENTS = "apt-ostree.kernel-arguments"  # as: in their order
#: Of the commit of an image that is none of an image of ours: its name, and what bootc and rpm-ostree note.
META_IMAGE = "apt-ostree.image"  # s: the reference that it was taken by
META_IMAGE_DIGEST = "ostree.manifest-digest"  # s
META_IMAGE_MANIFEST = "ostree.manifest"  # s: JSON
META_IMAGE_CONFIG = "ostree.container.image-config"  # s: JSON
#: In the state directory: the paths of /etc with what scripts made of edited files, one per line.
ETC_BESIDE = "etc-beside"


def opt_link(name: str) -> str:
    """Return the target of the link in /var/opt to a package's directory."""
    return f"../../{OPT}/{name}"
