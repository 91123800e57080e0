#!/usr/bin/env bash
# Installs the Debian packages that Jetway lacks on this machine; says nothing and changes nothing when all are there.
#
# usage: tests/install-deps.sh [build|world|nic|perf]...      (no argument: all of them)
#   build   what compiles it: DPDK, libclang for bindgen, a C compiler
#   world   what the end-to-end tests and the demo run: a stock WireGuard, traffic tools, packet capture
#   nic     what the emulated machine needs: QEMU and what makes its start-up file system
#   perf    what is measured beside Jetway, and what counts instructions: testpmd, valgrind
set -euo pipefail

packages_of() {
  case $1 in
    build) echo "libdpdk-dev dpdk libclang-dev pkg-config gcc libc6-dev make" ;;
    world) echo "wireguard-tools wireguard-go iproute2 iputils-ping iperf3 tcpdump tshark nftables ethtool curl nginx-light apache2-utils traceroute python3-minimal python3 procps util-linux" ;;
    nic) echo "qemu-system-x86 busybox-static cpio kmod dpkg gzip" ;;
    perf) echo "dpdk-dev valgrind" ;;
    *) echo "install-deps: no group '$1' (build, world, nic or perf)" >&2; exit 2 ;;
  esac
}

# The given packages that are not installed.
missing_of() {
  dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
    awk -v wanted="$*" '$2 == "installed" { have[$1] } END { n = split(wanted, w, " "); for (i = 1; i <= n; i++) if (!(w[i] in have)) print w[i] }'
}

# The packages bring no service that Jetway wants running: packages started while this runs are kept from starting one,
# unless the machine has a policy of its own.
POLICY=/usr/sbin/policy-rc.d
forbid_service_starts() {
  [ -e "$POLICY" ] && return
  trap 'rm -f "$POLICY"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod 755 "$POLICY"
}

main() {
  local group
  local -a groups=("$@") packages=() missing=()
  [ $# -gt 0 ] || groups=(build world nic perf)

  if ! command -v dpkg-query >/dev/null; then
    echo "install-deps: this machine has no dpkg. Install what 'tests/install-deps.sh' lists by the names of your distribution." >&2
    exit 1
  fi
  for group in "${groups[@]}"; do
    # shellcheck disable=SC2207
    packages+=($(packages_of "$group"))
  done
  mapfile -t missing < <(missing_of "${packages[@]}")
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
      echo "install-deps: not root, and these packages are missing. Install them with: sudo apt-get install ${missing[*]}" >&2
      exit 1
    fi
    echo "installing ${missing[*]}"
    forbid_service_starts
    export DEBIAN_FRONTEND=noninteractive
    # A machine that never updated its package lists finds none of the names; refresh the lists only then.
    apt-get install -y -q --no-install-recommends "${missing[@]}" ||
      { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; }
  fi
  if ! command -v cargo >/dev/null; then
    echo "install-deps: no Rust here. Install it from https://rustup.rs; rust-toolchain.toml picks the version." >&2
    exit 1
  fi
}

main "$@"
