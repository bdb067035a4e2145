# Prints what a build may leave in the sysroot: scratch directories, mounts, processes, unlisted deployments.
cd /sysroot/ostree
ls -d apt-ostree/work/* 2>/dev/null || true
for deployment in deploy/debian/deploy/*.[0-9]; do
    ostree admin status | grep -q "${deployment##*/}" || echo "$deployment"
done
grep -l apt-ostree-build /proc/[0-9]*/mountinfo 2>/dev/null || true
pgrep -af '[p]rogram.py worker' || pgrep -x 'bwrap|dpkg' || true
