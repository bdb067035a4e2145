# PATH...: prints one line for each file below the paths: kind, mode, owner, target, and what it holds.
for top in "$@"; do
    if test -e "$top"; then
        find "$top" -printf '%p %y %m %U %G %l\n'
        find "$top" -type f -exec sha256sum {} +
    fi
done | sort
