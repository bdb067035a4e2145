# DIRECTORY MARK: has a systemctl in the directory that does nothing but write its arguments to the mark.
mkdir -p "$1"
printf '#!/bin/sh\necho "$@" >>%s\n' "$2" >"$1/systemctl"
chmod +x "$1/systemctl"
