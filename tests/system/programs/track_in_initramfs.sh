#!/bin/sh
# Has files of /etc in the initramfs, one of them a service that copies another to /run; then changes them.
set -eu
mkdir -p /etc/systemd/system/initrd.target.wants
ln -s ../fx-initrd.service /etc/systemd/system/initrd.target.wants/fx-initrd.service
echo inside >/etc/fx-marker
chmod 640 /etc/fx-marker
cat >/etc/systemd/system/fx-initrd.service <<UNIT
[Unit]
DefaultDependencies=no
ConditionPathExists=/etc/initrd-release
Before=initrd.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /etc/fx-marker >/run/fx-seen; stat -c "%%a %%u" /etc/fx-marker >>/run/fx-seen'
UNIT
apt-ostree initramfs-etc --track=/etc/fx-marker --track=/etc/systemd/system/fx-initrd.service \
    --track=/etc/systemd/system/initrd.target.wants
rm -r /etc/systemd/system/initrd.target.wants /etc/systemd/system/fx-initrd.service
echo outside >/etc/fx-marker
