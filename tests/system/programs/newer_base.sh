# OPTION...: makes the booted deployment follow a remote, added with these options, that has one newer commit.
# /sysroot has to be writable.
repo=/var/tmp/base ref=debian/13/amd64/minimal
ostree init --repo=$repo --mode=bare
ostree pull-local --repo=$repo /ostree/repo $ref
mkdir -p /var/tmp/new/usr/share
echo new >/var/tmp/new/usr/share/new-base
ostree commit --repo=$repo --branch=$ref --owner-uid=0 --owner-gid=0 --add-metadata-string=version=14 \
    --tree=ref=$ref --tree=dir=/var/tmp/new
ostree remote add "$@" base file://$repo
sed -i s,refspec=,refspec=base:, /ostree/deploy/debian/deploy/*.origin
