# PATH NAME VERSION DEPENDS CONTENT: makes a package with one file.
tree=$(mktemp -d -p /var/tmp)
chmod 755 "$tree"
mkdir -p "$tree/DEBIAN" "$tree/usr/share/$2"
echo "$5" >"$tree/usr/share/$2/content"
cat >"$tree/DEBIAN/control" <<END
Package: $2
Version: $3
Architecture: all
Maintainer: x <x@x.invalid>
Depends: $4
Description: x
END
dpkg-deb -Znone --root-owner-group --build "$tree" "$1"
rm -r "$tree"
