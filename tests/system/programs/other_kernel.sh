# NAME PATH: makes a package of this name with kernel 9.9.0-1-pve, which is the machine's with a few modules.
tree=$(mktemp -d -p /var/tmp)
chmod 755 "$tree"
modules="$tree/usr/lib/modules/9.9.0-1-pve"
mkdir -p "$tree/DEBIAN" "$tree/boot" "$modules/kernel"
cd /usr/lib/modules/*/
cp vmlinuz "$tree/boot/vmlinuz-9.9.0-1-pve"
cp modules.builtin* modules.order "$modules"
(cd kernel && cp -r --parents fs/overlayfs fs/ext4 "$modules/kernel")
depmod -b "$tree/usr" 9.9.0-1-pve
cat >"$tree/DEBIAN/control" <<END
Package: $1
Version: 9.9.0-1
Architecture: amd64
Installed-Size: 20000
Maintainer: x <x@x.invalid>
Description: x
END
dpkg-deb -Znone --root-owner-group --build "$tree" "$2"
rm -r "$tree"
