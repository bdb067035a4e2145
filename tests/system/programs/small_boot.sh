# SIZE: gives the machine a /boot of this size on a file system of its own, with what is in /boot.
mount -t tmpfs -o "size=$1,mode=755" none /mnt
cp -a /boot/. /mnt/
mount --bind /mnt /boot
umount /mnt
