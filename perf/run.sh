#!/usr/bin/env bash
# Runs every measurement of the harness, one after another, in at most 15 minutes, into perf/results/latest.json and pictures.
#
# usage: perf/run.sh      needs a release build; as root it also measures end to end, in network namespaces
#
# What this machine cannot measure stands in the results, by name.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
PERF=${CARGO_TARGET_DIR:-$PWD/target}/release/jetway-perf
RESULTS=perf/results/latest.json
# No pass begins after IN_PROCESS seconds, and the last may take 60 more; then come budgets, of some 10 s. The end-to-end
# comparison comes last, and has what is left of the 15 minutes.
IN_PROCESS=600 END_TO_END=220
# Every figure has a few rounds in each of twenty passes: neighbours on a shared host slow a core down for seconds to minutes,
# and what is measured over most of the run sees little of any one of them.
ROUNDS=200
END_TO_END_RESULTS=perf/results/latest-peers.json

mkdir -p perf/results
rm -f "$RESULTS" "$END_TO_END_RESULTS"
timeout $((IN_PROCESS + 60)) "$PERF" --rounds "$ROUNDS" all --within "$IN_PROCESS" --json "$RESULTS" ||
  { echo "perf/run.sh: the measurement failed; what it found until then is in $RESULTS" >&2; exit 1; }
"$PERF" budgets || exit
if [ "$(id -u)" = 0 ]; then
  PEERS_JSON=$END_TO_END_RESULTS timeout "$END_TO_END" perf/peers.sh 3 ||
    { echo "perf/run.sh: the end-to-end comparison failed; the other figures are in $RESULTS" >&2; exit 1; }
  "$PERF" merge "$RESULTS" "$END_TO_END_RESULTS" || exit
else
  echo "NOT MEASURED: end to end beside wireguard-go (lacking: root)"
fi
"$PERF" plot "$RESULTS"
