# Makes backups in /run that must not be restored, from the good one in /run/good.ovl.
cd /run
head -c 2000 good.ovl >short.ovl
echo text >text.ovl
mkdir empty links
tar -xf good.ovl
mv repo bad
find bad -name '*.filez' | while read -r file; do echo x >"$file"; done
ln -s /etc/shadow links/repo
tar -cf links.ovl -C links repo
