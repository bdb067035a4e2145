# HTTP_PORT SSH_PORT: writes what an administrator would, before the packages come: theirs must not win.
mkdir -p /etc/nginx/sites-available /etc/ssh/sshd_config.d /etc/postgresql/15/main/conf.d
echo "server { listen 127.0.0.1:$1; root /usr/share/nginx/html; index index.html; }" \
    >/etc/nginx/sites-available/default
printf 'Port %s\nListenAddress 127.0.0.1\n' "$2" >/etc/ssh/sshd_config.d/test.conf
echo "listen_addresses = ''" >/etc/postgresql/15/main/conf.d/test.conf
rm /etc/apt/sources.list.d/*
