#!/bin/sh
# A scanner for [Policy]: does not accept a change that leaves packages with vulnerabilities that Debian has fixed.
#
#     Scanner=/usr/local/libexec/scan-vulnerabilities.sh trixie
#
# It needs the package debsecan, which asks Debian's security tracker, or the copy of its data at $SOURCE.
set -eu
status=$2/lib/sysimage/dpkg/status
[ -e "$status" ] || exit 0 # no package changes
found=$(debsecan --suite="$1" --only-fixed --format=packages --status="$status" ${SOURCE:+--source="$SOURCE"})
[ -z "$found" ] || { echo "there are security updates of $found" | tr '\n' ' '; exit 1; }
