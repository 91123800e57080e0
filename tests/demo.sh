#!/usr/bin/env bash
# Shows a whole VPN airport on one machine: a stock WireGuard client, one Jetway node on DPDK virtual devices, two servers.
#
#   client                       node                              servers
#   wg-quick (wireguard-go)      jetway                            http
#   10.8.0.2, fd00:8::2  ======  10.8.0.1, fd00:8::1
#   198.51.100.2 --- veth --- wan (net_af_packet)
#                                lan (net_tap) --- switch ---+---  192.0.2.11, 2001:db8:2::11
#                                                            +---  192.0.2.12, 2001:db8:2::12
#
# usage: tests/demo.sh        needs root and what `make deps` installs; exit 0 only if every step worked
#   DEMO_HOLD=1               keeps it up after the last step and prints commands to play with
#   JETWAY_BIN=PATH           shows this binary instead of building one
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1

readonly NAME=jwdemo TUNNEL=jwdemo0 CLIENT_IF=jwdemo-c
readonly NAMESPACES=(client node switch server1 server2)
readonly V4=(192.0.2.11 192.0.2.12) V6=(2001:db8:2::11 2001:db8:2::12)
JETWAY=${JETWAY_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/jetway}
WORK=
NUMBER=0
PIDS=()

main() {
  require_root
  trap 'exit 130' INT TERM
  trap clean_up EXIT
  WORK=$(mktemp -d /tmp/jetway-demo-XXXXXX) || exit 1

  step "build the release binary" build
  step "lay cables between client, node and two servers" lay_cables
  step "make keys and the node's configuration" configure
  step "check the configuration" jetway check
  step "start the node" start_node
  step "start an HTTP server on each server" start_servers
  step "connect a stock client with the configuration that jetway made for it" connect_client
  for server in 0 1; do
    for address in "${V4[$server]}" "${V6[$server]}"; do
      step "ping server $((server + 1)) at $address, 100 times" ping_server "$address"
    done
  done
  for server in 0 1; do
    for host in "${V4[$server]}" "[${V6[$server]}]"; do
      step "download 5 MB from server $((server + 1)) at $host" fetch "$server" "$host"
    done
  done
  show "wg show, on the node" inside node wg show "$TUNNEL"
  show "jetway stats" jetway stats
  [ "${DEMO_HOLD:-}" != 1 ] || hold
  step "stop the node" stop_node
  echo "the demo is complete: every step worked"
}

require_root() {
  [ "$(id -u)" = 0 ] || { echo "the demo makes network namespaces, so it needs root: sudo make demo" >&2; exit 1; }
  [ -e /dev/net/tun ] || { echo "the demo needs /dev/net/tun: load the kernel's tun module" >&2; exit 1; }
}

# step TEXT COMMAND...: one line of progress; what the command says is shown only if it fails.
step() {
  local text=$1 start=$SECONDS
  shift
  NUMBER=$((NUMBER + 1))
  printf '%2d  %-74s ' "$NUMBER" "$text"
  if "$@" >"$WORK/step.log" 2>&1; then
    printf 'ok  (%d s)\n' $((SECONDS - start))
  else
    printf 'FAILED\n'
    sed 's/^/      /' "$WORK/step.log" | tail -n 60
    if [ -s "$WORK/node.log" ]; then
      echo "      ---- the end of the node's log"
      tail -n 20 "$WORK/node.log" | sed 's/^/      /'
    fi
    exit 1
  fi
}

show() {
  local text=$1
  shift
  NUMBER=$((NUMBER + 1))
  printf '%2d  %s\n' "$NUMBER" "$text"
  if ! "$@" >"$WORK/step.log" 2>&1; then
    sed 's/^/      /' "$WORK/step.log"
    exit 1
  fi
  sed 's/^/      /' "$WORK/step.log"
}

inside() {
  local namespace=$1
  shift
  ip netns exec "$NAME-$namespace" "$@"
}

jetway() {
  inside node "$JETWAY" "$@" --config "$WORK/node.toml"
}

# wait_for SECONDS COMMAND...: polls until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || { echo "waited in vain for: $*"; return 1; }
    sleep 0.1
  done
}

build() {
  [ -n "${JETWAY_BIN:-}" ] || cargo build --locked --release --workspace --bins
  [ -x "$JETWAY" ] || { echo "$JETWAY is not there"; return 1; }
}

lay_cables() {
  local namespace server
  remove_namespaces # of a demo that was killed
  for namespace in "${NAMESPACES[@]}"; do
    ip netns add "$NAME-$namespace" || return
    ip -n "$NAME-$namespace" link set lo up || return
    inside "$namespace" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0 || return
  done
  cable client eth0 node w-wan || return
  ip -n "$NAME-client" addr add 198.51.100.2/24 dev eth0 || return
  ip -n "$NAME-switch" link add lan type bridge forward_delay 0 mcast_snooping 0 && ip -n "$NAME-switch" link set lan up || return
  for server in 0 1; do
    cable "server$((server + 1))" eth0 switch "p$server" &&
      ip -n "$NAME-switch" link set "p$server" master lan &&
      ip -n "$NAME-server$((server + 1))" addr add "${V4[$server]}/24" dev eth0 &&
      ip -n "$NAME-server$((server + 1))" addr add "${V6[$server]}/64" dev eth0 nodad &&
      ip -n "$NAME-server$((server + 1))" route add 10.8.0.0/16 via 192.0.2.1 &&
      ip -n "$NAME-server$((server + 1))" route add fd00:8::/64 via 2001:db8:2::1 || return
  done
}

# A virtual cable whose ends compute their own checksums, as a DPDK port expects of what comes from a real one.
cable() {
  ip link add "$2" netns "$NAME-$1" type veth peer name "$4" netns "$NAME-$3" || return
  local end
  for end in "$1 $2" "$3 $4"; do
    # shellcheck disable=SC2086
    set -- $end
    inside "$1" ethtool -K "$2" tx off >/dev/null && ip -n "$NAME-$1" link set "$2" up || return
  done
}

configure() {
  umask 077
  "$JETWAY" keygen "$WORK/server.key" && "$JETWAY" keygen "$WORK/client.key" || return
  cat >"$WORK/node.toml" <<TOML
[node]
name = "$NAME"
id = 1

[engine]
cores = [$(($(nproc) - 1))]
idle = "backoff"

[[port]]
name = "wan"
device = "net_af_packet0,iface=w-wan,framesz=2048,blocksz=4096,framecnt=4096"
addresses = ["198.51.100.1/24"]

[[port]]
name = "lan"
device = "net_tap0,iface=w-lan"
addresses = ["192.0.2.1/24", "2001:db8:2::1/64"]

[[tunnel]]
name = "$TUNNEL"
listen_port = 51820
private_key_file = "$WORK/server.key"
addresses = ["10.8.0.1/16", "fd00:8::1/64"]

[[tunnel.peer]]
name = "visitor"
public_key = "$("$JETWAY" pubkey "$WORK/client.key")"
allowed_ips = ["10.8.0.2/32", "fd00:8::2/128"]

[api]
socket = "$WORK/node.sock"
metrics = "127.0.0.1:9590"
TOML
}

start_node() {
  ip netns exec "$NAME-node" "$JETWAY" run --config "$WORK/node.toml" >"$WORK/node.log" 2>&1 &
  PIDS+=($!)
  wait_for 60 node_is_ready_or_dead "$!" && kill -0 "$!" 2>/dev/null && jetway ready || return
  # The kernel's end of the TAP device goes to the switch, as a cable would; it needs a MAC address unlike the port's.
  ip -n "$NAME-node" link set w-lan netns "$NAME-switch" &&
    ip -n "$NAME-switch" link set w-lan address 02:77:00:00:00:01 txqueuelen 8000 master lan up
}

node_is_ready_or_dead() {
  ! kill -0 "$1" 2>/dev/null || jetway ready >/dev/null 2>&1
}

start_servers() {
  local server
  head -c 5000000 /dev/urandom >"$WORK/data"
  mkdir -p "$WORK/www" && mv "$WORK/data" "$WORK/www/data"
  for server in 1 2; do
    ip netns exec "$NAME-server$server" /usr/bin/python3 -u -m http.server 80 --bind :: --directory "$WORK/www" >"$WORK/http$server.log" 2>&1 &
    PIDS+=($!)
    wait_for 20 grep -q Serving "$WORK/http$server.log" || return
  done
}

connect_client() {
  jetway client-config visitor --endpoint 198.51.100.1 --private-key-file "$WORK/client.key" \
    --allowed-ips 10.8.0.0/16,192.0.2.0/24,fd00:8::/64,2001:db8:2::/64 >"$WORK/$CLIENT_IF.conf" || return
  # wg-quick takes wireguard-go where the kernel has no WireGuard of its own.
  inside client wg-quick up "$WORK/$CLIENT_IF.conf"
}

ping_server() {
  inside client ping -n -q -c 100 -i 0.01 -W 3 "$1" | tee "$WORK/ping.log"
  grep -q ' 0% packet loss' "$WORK/ping.log"
}

fetch() {
  inside client curl -sS -g --fail --noproxy '*' --max-time 30 -o "$WORK/fetched" "http://$2/data" &&
    cmp "$WORK/fetched" "$WORK/www/data"
}

hold() {
  cat <<HOLD

    It stays up until you press Enter. In another terminal, as root:

      ip netns exec $NAME-client ping 192.0.2.11
      ip netns exec $NAME-client curl -o /dev/null http://192.0.2.12/data
      ip netns exec $NAME-client wg show
      ip netns exec $NAME-node wg show $TUNNEL
      ip netns exec $NAME-node tcpdump -ni $TUNNEL
      ip netns exec $NAME-node $JETWAY stats --config $WORK/node.toml
      ip netns exec $NAME-node $JETWAY peers --config $WORK/node.toml
      less $WORK/node.log

HOLD
  read -r _ || true
}

stop_node() {
  inside client wg-quick down "$WORK/$CLIENT_IF.conf" || return
  kill -TERM "${PIDS[0]}" && wait "${PIDS[0]}" || return
  ! ip -n "$NAME-node" link show "$TUNNEL" 2>/dev/null
}

clean_up() {
  local pid
  if [ -e "/var/run/wireguard/$CLIENT_IF.sock" ]; then
    # wireguard-go ends when its interface goes.
    ip -n "$NAME-client" link del "$CLIENT_IF" 2>/dev/null
  fi
  for pid in "${PIDS[@]}"; do
    kill -TERM "$pid" 2>/dev/null
  done
  [ ${#PIDS[@]} = 0 ] || wait "${PIDS[@]}" 2>/dev/null
  remove_namespaces
  rm -rf "$WORK"
}

remove_namespaces() {
  local namespace
  for namespace in "${NAMESPACES[@]}"; do
    [ ! -e "/run/netns/$NAME-$namespace" ] || ip netns del "$NAME-$namespace"
  done
}

main
