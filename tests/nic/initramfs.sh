#!/usr/bin/env bash
# Builds the start-up file system of an emulated machine: busybox, kernel modules, programs with the libraries they load.
#
# usage: tests/nic/initramfs.sh OUT KERNEL_FOLDER "MODULE..." "PROGRAM..." ["PMD..."]
#   PROGRAM  a name in PATH or a path;   PMD  a DPDK driver such as net_e1000
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
out=$(readlink -f "$(dirname "$1")")/$(basename "$1")
kernel=$2 modules=$3 programs=$4 pmds=${5:-}
version=$(ls "$kernel/lib/modules")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,etc,var,usr/bin,usr/lib/modules,usr/lib64}
# Merged as on Debian, so that /lib/x and /usr/lib/x are one file.
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
ln -s ../run "$root/var/run"
cp /bin/busybox "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done

# Modules in the order in which insmod takes them.
for module in $modules; do
  modprobe -d "$kernel" -S "$version" --show-depends "$module" 2>/dev/null | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
  cp "$file" "$root/lib/modules/"
  echo "/lib/modules/$(basename "$file")" >>"$root/etc/modules"
done

add_libraries() {
  ldd "$1" | awk '/=> \// { print $3 } /ld-linux/ { print $1 }' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    [ -e "$root$library" ] || cp -L "$library" "$root$library"
  done
}

for program in $programs; do
  path=$(readlink -f "$(command -v "$program")")
  name=$(basename "$program")
  rm -f "$root/bin/$name"
  strip -o "$root/bin/$name" "$path" 2>/dev/null || cp "$path" "$root/bin/$name"
  add_libraries "$path"
done

# DPDK loads whatever is in its plug-in folder. A driver there must be a link to the one copy that the loader takes for other
# libraries, or its constructors run twice; and a driver that is only some library's dependency must not be there at all.
if [ -n "$pmds" ]; then
  plugins=$(echo /usr/lib/*/dpdk/pmds-*)
  libraries=$(dirname "$(dirname "$plugins")")
  mkdir -p "$root$plugins"
  for pmd in $pmds; do
    source=$(readlink -f "$plugins/librte_$pmd.so")
    add_libraries "$source"
    cp "$source" "$root$plugins/$(objdump -p "$source" | awk '$1 == "SONAME" { print $2 }')"
  done
  mv "$root$plugins"/* "$root$libraries/"
  for pmd in $pmds; do
    installed=("$root$libraries/librte_$pmd.so".*)
    ln -s "${installed[0]#"$root"}" "$root$plugins/librte_$pmd.so"
  done
  # pthread_cancel loads it by name.
  cp -L "$libraries/libgcc_s.so.1" "$root$libraries/"
fi

cp "$here/init" "$root/init"
chmod +x "$root/init"
# Not compressed: unpacking is the slowest thing an emulated machine does.
(cd "$root" && find . | cpio -o -H newc --quiet) >"$out.new"
mv "$out.new" "$out"
