#!/usr/bin/env bash
# Downloads Debian's kernel and unpacks it, never installing it, for the emulated machines.
#
# usage: tests/nic/kernel.sh FOLDER      leaves FOLDER/vmlinuz and FOLDER/lib/modules/<version> with modules.dep
set -euo pipefail

folder=$1
[ -e "$folder/complete" ] && exit 0
mkdir -p "$folder"
folder=$(readlink -f "$folder")
exec 9>"$folder/.lock"
flock 9
[ -e "$folder/complete" ] && exit 0

scratch=$(mktemp -d "$folder/unpack-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

package_of_today() {
  apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-[0-9]/ { print $2; exit }'
}
# The list of packages may be missing, or older than what the archive still has.
download() {
  local package
  package=$(package_of_today)
  [ -n "$package" ] && apt-get download -q "$package"
}
download || { apt-get update -q && download; } ||
  { echo "kernel.sh: cannot download the package that linux-image-amd64 depends on" >&2; exit 1; }

dpkg -x ./*.deb unpacked
version=$(ls unpacked/lib/modules)
depmod -b unpacked "$version"
mv unpacked/boot/vmlinuz-* "$folder/vmlinuz"
mkdir -p "$folder/lib/modules"
mv "unpacked/lib/modules/$version" "$folder/lib/modules/"
touch "$folder/complete"
