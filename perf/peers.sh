#!/usr/bin/env bash
# Compares a node of jetway with a node of wireguard-go and the kernel's forwarding, end to end, in the same world:
#
#   client (wireguard-go) --- veth --- node (jetway | wireguard-go) --- veth --- server (iperf3)
#
# usage: perf/peers.sh [ROUNDS]      needs root, `make deps` and a release build; prints a table;
#        PEERS_JSON=FILE writes the rows of jetway-perf's results too
#
# The two nodes take turns, round by round, so that a machine whose speed drifts treats both alike. Figures are medians;
# client, node, server and generator share the machine's cores, so they say how the nodes compare and not how fast a
# node is on a core of its own.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
ROUNDS=${1:-3}
SECONDS_EACH=${SECONDS_EACH:-2}
JETWAY=${JETWAY_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/jetway}
ID=jwp$$
WORK=$(mktemp -d /tmp/jetway-peers-XXXXXX)
PIDS=()
umask 077

[ "$(id -u)" = 0 ] || { echo "perf/peers.sh makes network namespaces, so it needs root" >&2; exit 1; }
[ -x "$JETWAY" ] || { echo "$JETWAY is not there: make build" >&2; exit 1; }

inside() { local namespace=$1; shift; ip netns exec "$ID-$namespace" "$@"; }

clean_up() {
  stop_node
  for namespace in c n s; do ip netns del "$ID-$namespace" 2>/dev/null; done
  rm -rf "$WORK"
}
trap clean_up EXIT

stop_node() {
  [ ${#PIDS[@]} = 0 ] || { kill "${PIDS[@]}" 2>/dev/null; wait "${PIDS[@]}" 2>/dev/null; }
  PIDS=()
}

# wait_for COMMAND...: polls for at most 20 s.
wait_for() {
  local tries
  for tries in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  echo "waited in vain for: $*" >&2
  return 1
}

lay_cables() {
  local namespace
  for namespace in c n s; do
    ip netns del "$ID-$namespace" 2>/dev/null
    ip netns add "$ID-$namespace" && ip -n "$ID-$namespace" link set lo up || return
    inside "$namespace" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 || return
  done
  ip link add eth0 netns "$ID-c" type veth peer name wan netns "$ID-n"
  ip link add eth0 netns "$ID-s" type veth peer name lan netns "$ID-n"
  ip -n "$ID-c" addr add 198.51.100.2/24 dev eth0 && ip -n "$ID-s" addr add 192.0.2.11/24 dev eth0 || return
  ip -n "$ID-c" link set eth0 up && ip -n "$ID-s" link set eth0 up || return
  ip -n "$ID-s" route add default via 192.0.2.1 || return
  ip -n "$ID-n" link set wan up && ip -n "$ID-n" link set lan up || return
  inside c ethtool -K eth0 tx off >/dev/null && inside s ethtool -K eth0 tx off >/dev/null
}

start_jetway() {
  local core=$(($(nproc) - 1))
  cat >"$WORK/node.toml" <<T
[node]
name = "$ID"
id = 1
[engine]
cores = [$core]
[[port]]
name = "wan"
device = "net_af_packet0,iface=wan"
addresses = ["198.51.100.1/24"]
host_interface = "jwwan"
[[port]]
name = "lan"
device = "net_af_packet1,iface=lan"
addresses = ["192.0.2.1/24"]
host_interface = "jwlan"
[[tunnel]]
name = "${ID}t"
listen_port = 51820
private_key_file = "server.key"
addresses = ["10.8.0.1/24"]
[[tunnel.peer]]
name = "client"
public_key = "$(wg pubkey <"$WORK/client.key")"
allowed_ips = ["10.8.0.2/32"]
[api]
socket = "$WORK/api.sock"
T
  ip netns exec "$ID-n" "$JETWAY" run --config "$WORK/node.toml" >"$WORK/node.log" 2>&1 &
  PIDS+=($!)
  wait_for "$JETWAY" ready --config "$WORK/node.toml"
}

start_wireguard_go() {
  ip netns exec "$ID-n" wireguard-go -f "${ID}t" >"$WORK/node.log" 2>&1 &
  PIDS+=($!)
  wait_for test -S "/var/run/wireguard/${ID}t.sock"
  inside n wg set "${ID}t" listen-port 51820 private-key "$WORK/server.key" \
    peer "$(wg pubkey <"$WORK/client.key")" allowed-ips 10.8.0.2/32
  ip -n "$ID-n" addr add 10.8.0.1/24 dev "${ID}t" && ip -n "$ID-n" link set "${ID}t" mtu 1420 up
  ip -n "$ID-n" addr add 198.51.100.1/24 dev wan && ip -n "$ID-n" addr add 192.0.2.1/24 dev lan
  inside n sysctl -qw net.ipv4.ip_forward=1
}

start_client() {
  ip netns exec "$ID-c" wireguard-go -f "${ID}c" >"$WORK/client.log" 2>&1 &
  PIDS+=($!)
  wait_for test -S "/var/run/wireguard/${ID}c.sock"
  inside c wg set "${ID}c" private-key "$WORK/client.key" peer "$(wg pubkey <"$WORK/server.key")" \
    allowed-ips 10.8.0.0/24,192.0.2.0/24 endpoint 198.51.100.1:51820
  ip -n "$ID-c" addr add 10.8.0.2/24 dev "${ID}c" && ip -n "$ID-c" link set "${ID}c" mtu 1420 up
  ip -n "$ID-c" route add 192.0.2.0/24 dev "${ID}c"
  wait_for inside c ping -c 1 -W 1 192.0.2.11
}

# iperf3 FILE ARGUMENTS...: the report of one run as JSON, into the file. A run that fails is made once more.
transfer() {
  local file=$1 try server status
  shift
  for try in 1 2; do
    ip netns exec "$ID-s" timeout $((SECONDS_EACH + 10)) iperf3 -s -1 >/dev/null 2>&1 &
    server=$!
    wait_for listens
    inside c timeout $((SECONDS_EACH + 8)) iperf3 -c 192.0.2.11 -t "$SECONDS_EACH" -J "$@" >"$file"
    status=$?
    [ $status = 0 ] || kill $server 2>/dev/null
    wait $server
    [ $status != 0 ] || return 0
  done
  echo "iperf3 $* failed: $(grep -m 1 '"error"' "$file")" >&2
  return 1
}

listens() { [ -n "$(inside s ss -Hltn 'sport = :5201')" ]; }

measure() {
  local node=$1 round=$2
  lay_cables && "start_$node" && start_client || { cat "$WORK/node.log" >&2; exit 1; }
  inside c ping -i 0.005 -c 400 192.0.2.11 >"$WORK/$node.$round.ping"
  transfer "$WORK/$node.$round.up" && transfer "$WORK/$node.$round.down" -R &&
    transfer "$WORK/$node.$round.small-up" -u -b 0 -l 64 && transfer "$WORK/$node.$round.small-down" -u -b 0 -l 64 -R || exit 1
  stop_node
}

wg genkey >"$WORK/server.key"
wg genkey >"$WORK/client.key"
for round in $(seq "$ROUNDS"); do
  for node in jetway wireguard_go; do measure "$node" "$round"; done
done
python3 - "$WORK" "$ROUNDS" "$(git rev-parse --short HEAD 2>/dev/null)" "$(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo)" <<'P'
import json, os, re, sys
work, rounds, commit, cpu = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
def report(node, round_, kind):
    return json.load(open(f"{work}/{node}.{round_}.{kind}"))["end"]
def times(node, round_):
    return sorted(float(ms) for ms in re.findall(r"time=([\d.]+) ms", open(f"{work}/{node}.{round_}.ping").read()))
def value(node, round_, what):
    if what.startswith("ping"):
        share = {"p50": 0.5, "p99": 0.99}[what.split()[1]]
        found = times(node, round_)
        return found[round((len(found) - 1) * share)]
    if what.startswith("TCP"):
        return report(node, round_, what.split()[1])["sum_received"]["bits_per_second"] / 1e6
    end = report(node, round_, f"small-{what.split()[3]}")["sum"]
    return (end["packets"] - end["lost_packets"]) / end["seconds"] / 1e3
def median(values):
    return sorted(values)[len(values) // 2]
rows = []
print(f"{rounds} rounds, {cpu}, commit {commit}; medians [least..most]")
print(f"{'':24} {'jetway':>26} {'wireguard-go':>26}   ratio")
# The share of the median within which all but the outer quarters are; all rounds, if there are few.
def spread(values):
    ordered = sorted(values)
    cut = len(ordered) // 4
    inner = ordered[cut:len(ordered) - cut]
    return (inner[-1] - inner[0]) / median(values) if median(values) else 0.0
# The keys of jetway-perf's results. A ratio above 1 says that the peer needs so many times as long.
def row(scenario, peer, values, kind, ratio):
    middle = median(values)
    rate = {"gbps": middle / 1e3} if kind == "Mbit/s" else {}
    # TCP's segments in a tunnel of 1,420 bytes carry 1,368.
    nanoseconds = {"Mbit/s": 1368 * 8e3 / middle, "kpackets/s": 1e6 / middle, "ms": middle * 1e6}[kind]
    return {"scenario": scenario, "size": "64" if kind == "kpackets/s" else "", "burst": None, "flows": 1, "peer": peer,
            "ns_per_packet": nanoseconds, "mpps": 1e3 / nanoseconds, "gbps": None, "ratio": ratio,
            "spread": spread(values), "cpu": cpu, "commit": commit} | rate
for what, kind in (("TCP up Mbit/s", "Mbit/s"), ("TCP down Mbit/s", "Mbit/s"), ("UDP 64 B up kpackets/s", "kpackets/s"),
                   ("UDP 64 B down kpackets/s", "kpackets/s"), ("ping p50 ms", "ms"), ("ping p99 ms", "ms")):
    one, other = ([value(node, r, what) for r in range(1, rounds + 1)] for node in ("jetway", "wireguard_go"))
    faster = (lambda a, b: b / a) if kind == "ms" else (lambda a, b: a / b)
    ratio = median([faster(a, b) for a, b in zip(one, other)])
    cell = lambda v: f"{median(v):9.2f} [{min(v):.2f}..{max(v):.2f}]"
    print(f"{what:24} {cell(one):>26} {cell(other):>26}   {ratio:5.2f}")
    scenario = "end to end: " + what.removesuffix(kind).strip()
    rows += [row(scenario, "jetway", one, kind, 1.0), row(scenario, "wireguard-go", other, kind, ratio)]
results = os.environ.get("PEERS_JSON")
if results:
    with open(results, "w") as file:
        json.dump({"cpu": cpu, "aead": "", "commit": commit, "command": "perf/peers.sh", "rows": rows, "quantities": []}, file)
P
