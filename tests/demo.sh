#!/usr/bin/env bash
# Shows a whole VPN airport on one machine: a stock WireGuard client, one Jetway node on DPDK virtual devices, servers behind
# a virtual address.
#
#   client                       node                              servers
#   wg-quick (wireguard-go)      jetway                            http
#   10.8.0.2, fd00:8::2  ======  10.8.0.1, fd00:8::1
#   198.51.100.2 --- veth --- wan (net_af_packet)
#                                lan (net_tap) --- switch ---+---  192.0.2.11, 2001:db8:2::11
#                                service 10.100.0.10         +---  192.0.2.12, 2001:db8:2::12
#                                                            +---  192.0.2.13, 2001:db8:2::13
#                                                            +---  192.0.2.14, 2001:db8:2::14 (joins later)
#
# usage: tests/demo.sh        needs root and what `make deps` installs; exit 0 only if every step worked
#   DEMO_HOLD=1               keeps it up after the last step and prints commands to play with
#   JETWAY_BIN=PATH           shows this binary instead of building one
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1

readonly NAME=jwdemo TUNNEL=jwdemo0 CLIENT_IF=jwdemo-c
readonly NAMESPACES=(client node switch server1 server2 server3 server4)
readonly V4=(192.0.2.11 192.0.2.12 192.0.2.13 192.0.2.14) V6=(2001:db8:2::11 2001:db8:2::12 2001:db8:2::13 2001:db8:2::14)
readonly SERVICE=10.100.0.10
# Curls beside each other that make the steady stream of requests, and when, in seconds of it, something happens.
readonly CURLS=4 KILLED=3 DRAINED=7 ADDED=11 LAST=15
JETWAY=${JETWAY_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/jetway}
WORK=
NUMBER=0
PIDS=()
SERVERS=()

main() {
  require_root
  trap 'exit 130' INT TERM
  trap clean_up EXIT
  WORK=$(mktemp -d /tmp/jetway-demo-XXXXXX) || exit 1

  step "build the release binary" build
  step "lay cables between client, node and four servers" lay_cables
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
  step "download 5 MB from the service at $SERVICE" fetch "$SERVICE"
  for server in 0 1; do
    for address in "${V4[$server]}" "[${V6[$server]}]"; do
      step "download 5 MB from server $((server + 1)) at $address" fetch "$address"
    done
  done
  show_live "ask $SERVICE, three servers, through the tunnel; kill one, drain one, add one" watch_requests
  show "jetway vips" jetway vips
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

# show_live TEXT COMMAND...: what the command says is shown as it says it.
show_live() {
  local text=$1
  shift
  NUMBER=$((NUMBER + 1))
  printf '%2d  %s\n' "$NUMBER" "$text"
  "$@" || exit 1
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
  for server in 0 1 2 3; do
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
  cat >"$WORK/base.toml" <<TOML
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
  serve_with 1 2 3
}

# serve_with NUMBER...: writes the node's configuration, with these servers behind the service.
serve_with() {
  local server
  {
    cat "$WORK/base.toml"
    printf '\n[[vip]]\nname = "web"\naddress = "%s"\nport = 80\nprotocol = "tcp"\nhealth = { kind = "tcp" }\n' $SERVICE
    for server in "$@"; do
      printf '\n[[vip.backend]]\nname = "server%s"\naddress = "%s"\n' "$server" "${V4[$((server - 1))]}"
    done
  } >"$WORK/node.toml"
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
  for server in 1 2 3 4; do
    mkdir "$WORK/www$server" && ln "$WORK/data" "$WORK/www$server/data" && echo "server$server" >"$WORK/www$server/name" || return
    ip netns exec "$NAME-server$server" /usr/bin/python3 -u -m http.server 80 --bind :: --directory "$WORK/www$server" >"$WORK/http$server.log" 2>&1 &
    PIDS+=($!)
    SERVERS+=($!)
    wait_for 20 grep -q Serving "$WORK/http$server.log" || return
  done
}

connect_client() {
  jetway client-config visitor --endpoint 198.51.100.1 --private-key-file "$WORK/client.key" \
    --allowed-ips 10.8.0.0/16,192.0.2.0/24,$SERVICE/32,fd00:8::/64,2001:db8:2::/64 >"$WORK/$CLIENT_IF.conf" || return
  # wg-quick takes wireguard-go where the kernel has no WireGuard of its own.
  inside client wg-quick up "$WORK/$CLIENT_IF.conf"
}

ping_server() {
  inside client ping -n -q -c 100 -i 0.01 -W 3 "$1" | tee "$WORK/ping.log"
  grep -q ' 0% packet loss' "$WORK/ping.log"
}

fetch() {
  inside client curl -sS -g --fail --noproxy '*' --max-time 30 -o "$WORK/fetched" "http://$1/data" &&
    cmp "$WORK/fetched" "$WORK/data"
}

# A line a request in $WORK/requests: when it began, how many seconds later it ended, who answered or FAILED and why.
ask_all_the_time() {
  local began answer
  while [ ! -e "$WORK/enough" ]; do
    began=$EPOCHREALTIME
    answer=$(curl -sS --fail --noproxy '*' --max-time 5 "http://$SERVICE/name" 2>&1) || answer="FAILED ${answer//$'\n'/ }"
    echo "$began $EPOCHREALTIME $answer"
  done >>"$WORK/requests"
}

# Prints each second who answered how many requests and what failed; succeeds if nothing failed that should not have.
watch_requests() {
  local number start second event killed
  export WORK SERVICE
  export -f ask_all_the_time
  for ((number = 0; number < CURLS; number++)); do
    ip netns exec "$NAME-client" bash -c ask_all_the_time &
    PIDS+=($!)
  done
  start=$EPOCHREALTIME
  printf '      %6s  %7s  %7s  %7s  %7s  %6s\n' second server1 server2 server3 server4 failed
  for ((second = 1; second <= LAST; second++)); do
    event=
    case $second in
      "$KILLED") event="<- kill -9 of server2"; killed=$EPOCHREALTIME; disown "${SERVERS[1]}"; kill -KILL "${SERVERS[1]}" ;;
      "$DRAINED") event="<- jetway backend drain web/server3"; jetway backend drain web/server3 >"$WORK/step.log" 2>&1 || fail ;;
      "$ADDED") event="<- server4 added by jetway reload"; serve_with 1 2 3 4; jetway reload >"$WORK/step.log" 2>&1 || fail ;;
    esac
    sleep "$(awk -v start="$start" -v second="$second" -v now="$EPOCHREALTIME" 'BEGIN { left = start + second - now; print (left > 0 ? left : 0) }')"
    awk -v from="$start" -v second="$second" -v event="$event" '
      int($2 - from) == second - 1 { count[$3]++ }
      END { printf "      %6d  %7d  %7d  %7d  %7d  %6d  %s\n", second, count["server1"], count["server2"], count["server3"], count["server4"], count["FAILED"], event }
    ' "$WORK/requests"
  done
  touch "$WORK/enough"
  wait "${PIDS[@]: -CURLS}"
  judge_requests "$start" "$killed"
}

fail() {
  sed 's/^/      /' "$WORK/step.log"
  exit 1
}

# Of a killed server, what it had in hand fails, and what came until the node saw that it was gone: nothing else may fail.
judge_requests() {
  awk -v start="$1" -v killed="$2" -v drained="$DRAINED" -v added="$ADDED" '
    { total++; if ($2 - $1 > slowest) slowest = $2 - $1 }
    $3 == "FAILED" {
      failed++
      if ($1 - killed > last) last = $1 - killed
      if ($2 < killed || $1 > killed + 1) { wrong++; print "      not to fail: " $0 }
    }
    # Half a second is more than a command takes to be in force.
    $3 == "server3" && $1 - start > drained - 0.5 { late++ }
    $3 == "server4" { new++ }
    $1 - start > added { after++ }
    END {
      printf "\n      %d requests, %d failed, all in the %.0f ms after the kill; the slowest took %.0f ms\n", total, failed, 1000 * last, 1000 * slowest
      printf "      new requests to the drained server: %d; to the new one: %d of the last %d\n\n", late, new, after
      exit wrong > 0 || late > 0 || new * 5 < after || total < 500
    }
  ' "$WORK/requests"
}

hold() {
  cat <<HOLD

    It stays up until you press Enter. In another terminal, as root:

      ip netns exec $NAME-client ping 192.0.2.11
      ip netns exec $NAME-client curl http://$SERVICE/name
      ip netns exec $NAME-node $JETWAY vips --config $WORK/node.toml
      ip netns exec $NAME-node $JETWAY flows --config $WORK/node.toml
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
