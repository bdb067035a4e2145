#!/bin/sh
# Prints what follows an initramfs image: each path with its mode, its owner and its content, or with its target.
set -eu
size=$(cat "${1%.img}.size")
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
cd "$scratch"
tail -c "+$((size + 4 + (4 - size % 4) % 4 + 1))" "$1" | cpio --extract --quiet
find . -mindepth 1 | LC_ALL=C sort | while read -r path; do
    if [ -L "$path" ]; then
        echo "${path#./} $(readlink "$path")"
    else
        content=
        [ -d "$path" ] || content=" $(cat "$path")"
        echo "${path#./} $(stat -c '%a %u:%g' "$path")$content"
    fi
done
