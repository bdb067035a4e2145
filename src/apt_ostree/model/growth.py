"""The unit that lets the root partition take the rest of a disk that is larger than the image was.

It does so at each boot, so that a disk that is enlarged later counts as well. systemd grows the file system
after it (x-systemd.growfs in fstab).
"""

from __future__ import annotations

NAME = "grow-root-partition.service"
#: Who starts it.
WANTED_BY = "local-fs.target"
#: Program in the tree that it needs -> package. All others are of essential packages.
NEEDS = {"usr/sbin/sfdisk": "fdisk"}

#: In sectors of 512 bytes, as sysfs counts; less than two mebibytes are not worth a new partition table.
SCRIPT = """\
part=$(findmnt --noheadings --nofsroot --output SOURCE /sysroot)
cd "/sys/class/block/${part##*/}"
number=$(cat partition) end=$(($(cat start) + $(cat size)))
disk=$(basename "$(realpath ..)") size=$(cat ../size)
test $((size - end)) -gt 4096 || exit 0
echo ", +" | sfdisk --quiet --no-reread --no-tell-kernel -N "$number" "/dev/$disk"
partx --update --nr "$number" "/dev/$disk"
"""


def unit() -> str:
    """Return the unit."""
    script = "; \\\n  ".join(SCRIPT.replace("$", "$$").splitlines())
    return f"""\
# Of the disk image that this machine was made from ('apt-ostree compose disk').
[Unit]
Description=Grow the root partition to the end of the disk
DefaultDependencies=no
Conflicts=shutdown.target
Before=systemd-growfs-root.service shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec '\\
  {script}'

[Install]
WantedBy={WANTED_BY}
"""
