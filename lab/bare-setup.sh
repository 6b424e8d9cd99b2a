#!/bin/sh
# Runs inside the fresh root file system of a bare host: makes a package repository in folder $1 of what apt has
# downloaded and not installed. The index is what `dpkg-scanpackages` would write, without needing it.
set -eu
mkdir -p "$1"
mv /var/cache/apt/archives/*.deb "$1"
cd "$1"
for package in *.deb; do
    dpkg-deb --field "$package"
    printf 'Filename: ./%s\nSize: %s\n' "$package" "$(stat --format %s "$package")"
    printf 'SHA256: %s\n\n' "$(sha256sum "$package" | cut -d ' ' -f 1)"
done >Packages
