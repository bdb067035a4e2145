# HTTP_PORT OTHER_HTTP_PORT SSH_PORT OTHER_SSH_PORT: gives a machine a writable /usr, other ports for its
# services, and a policy not to restart any, so that apt-get upgrades it as it does a plain Debian.
mount -o remount,rw /usr
sed -i "s/$1/$2/" /etc/nginx/sites-available/default
sed -i "s/$3/$4/" /etc/ssh/sshd_config.d/test.conf
systemctl restart nginx ssh
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
