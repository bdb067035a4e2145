# Makes two trees, /var/tmp/one and /var/tmp/two, in which paths of /etc are of other types.
mkdir -p /var/tmp/one/usr/etc/fx/dir/sub /var/tmp/one/usr/etc/fx/kept
cd /var/tmp/one/usr/etc/fx
echo 1 | tee file dir/sub/inner kept/inner
ln -s file link
mkdir -p /var/tmp/two/usr/etc/fx/file /var/tmp/two/usr/etc/fx/link
cd /var/tmp/two/usr/etc/fx
echo 2 | tee dir kept file/inner link/inner
