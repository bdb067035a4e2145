"""The never-restart list: names of units whose restart affects more than the service itself.

The administrator's settings take precedence over it (unitrules).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

#: Reason -> patterns of unit names. The union of the lists of needrestart, NixOS and Debian's packages.
_NEVER: Mapping[str, str] = {
    "sessions depend on it": """
        systemd-logind.service elogind.service user@*.service user-runtime-dir@*.service
        systemd-user-sessions.service getty@*.service serial-getty@*.service console-getty.service
        container-getty@*.service autovt@*.service emergency.service rescue.service session-*.scope
        debug-shell.service *vncserver@*.service xrdp.service xrdp-sesman.service""",
    "every service talks through it": "dbus.service dbus-broker.service",
    "the graphical session runs in it": """
        display-manager.service gdm.service gdm3.service sddm.service lightdm.service greetd.service
        xdm.service kdm.service lxdm.service nodm.service slim.service wdm.service ly.service ly@*.service
        plymouth*.service""",
    "the network depends on it": """
        NetworkManager*.service wpa_supplicant.service wpa_supplicant*@*.service iwd.service
        connman.service ModemManager.service networking.service ifup@*.service dhcpcd*.service
        hostapd*.service *vpn*.service *swan*.service ipsec.service wg-quick@*.service tinc.service
        tinc@*.service bird.service bird6.service frr.service quagga*.service zebra.service""",
    "guests and containers depend on it": """
        libvirtd.service libvirt-guests.service virt*d.service lxc.service lxc@*.service lxc-net.service
        lxcfs.service lxd*.service incus*.service docker.service containerd.service podman*.service
        crio.service systemd-nspawn@*.service systemd-machined.service machine-*.scope xen*.service""",
    "mounted storage depends on it": """
        iscsid.service open-iscsi.service multipathd.service lvm2-*.service dm-event.service
        blk-availability.service mdmon@*.service mdmonitor.service drbd*.service nbd*.service zfs-*.service
        systemd-cryptsetup@*.service systemd-veritysetup@*.service systemd-sysext.service
        systemd-confext.service""",
    "mounted file systems run in it": """
        *fuse*.service sshfs*.service s3fs*.service rclone*.service mergerfs*.service davfs2*.service
        glusterfs*.service""",
    "devices depend on it": "bluetooth.service usbguard.service",
    "it does its work once, at boot or by the clock": """
        systemd-random-seed.service systemd-remount-fs.service systemd-update-utmp*.service
        systemd-journal-flush.service systemd-fsck@*.service systemd-fsck-root.service
        systemd-backlight@*.service systemd-rfkill.service systemd-udev-settle.service
        systemd-udev-trigger.service systemd-tmpfiles-setup*.service ostree-*.service initrd-*.service
        cloud-init*.service cloud-config.service cloud-final.service rc-local.service apt-daily*.service
        unattended-upgrades.service""",
}


def never(*names: str) -> str | None:
    """Return why a unit is never restarted while the system runs, or None if it may be.

    names: its name and its aliases, which another package may have given to it.
    """
    for reason, patterns in _NEVER.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns.split() for name in names):
            return f"never restarted while the system runs: {reason}"
    return None
