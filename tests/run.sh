#!/usr/bin/env bash
# Runs the named parts of the test suite, one after another, and counts over all of them.
#
# usage: tests/run.sh PART...     parts: lint pure unit loom fuzz budgets e2e dispatch load nic
#
# Prints a line per step, the output of what failed, what was skipped, and at the end "N passed, N failed".
# Exits 1 if anything failed. Full logs stay in <target>/test-logs/.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1

TARGET=${CARGO_TARGET_DIR:-$PWD/target}
LOGS=$TARGET/test-logs
passed=0 failed=0 skipped=0
built_debug= built_release=

# In CI the seeds are fixed, of the tests' own choices and of proptest's: there a failure shall say something of the change.
# Everywhere else chance finds new cases; a failure prints its seed, and these two repeat it.
if [ "${CI:-}" = true ]; then
  export JETWAY_SEED=${JETWAY_SEED:-1} PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
fi

# step NAME COMMAND...: runs it into a log. A step counts the tests that its log reports; one that reports none counts as one.
step() {
  local name=$1 log=$LOGS/$1.log start=$SECONDS status p f s
  shift
  printf '%-14s ' "$name"
  "$@" >"$log" 2>&1
  status=$?
  read -r p f < <(awk '/^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } } END { print p + 0, f + 0 }' "$log")
  s=$(grep -ac '^SKIPPED: ' "$log")
  # A test that skips counts as passed to cargo; a step that is no test has nothing to take off.
  [ "$p" -lt "$s" ] || p=$((p - s))
  if [ "$status" != 0 ] && [ "$f" = 0 ]; then f=1; fi
  if [ "$status" = 0 ] && [ $((p + f + s)) = 0 ]; then p=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  printf '%4d passed, %d failed, %d skipped  (%d s)\n' "$p" "$f" "$s" $((SECONDS - start))
  grep -a '^SKIPPED: ' "$log"
  [ "$status" = 0 ] || show_failure "$log"
  return "$status"
}

# What a reader needs of the log of a failed step: the failures if tests ran, else its end.
show_failure() {
  echo "---- from $1"
  if grep -aq '^failures:' "$1"; then
    awk '/^failures:/ { show = 1 } /^test result: ok/ { show = 0 } show { print; if (/^test result: FAILED/) show = 0 }' "$1" | head -n 400
  else
    tail -n 60 "$1"
  fi
  echo "----"
}

part_lint() {
  step format cargo fmt --all --check
  step clippy cargo clippy --locked --workspace --all-targets -- -D warnings
}

part_pure() {
  step pure cargo test --locked --no-fail-fast -p jetway-config -p jetway-pipelines -p jetway-aead -p jetway-x25519 -p jetway-sync
}

# Every test but the parts below. All of them name the whole workspace, so that cargo unites the features of dependencies
# in one way and builds each of them once for a profile.
part_unit() {
  # shellcheck disable=SC2046
  step unit cargo test --locked --no-fail-fast --workspace --lib $(test_targets_beside dispatch e2e fuzz load nic)
}

# Loom replaces the atomics of jetway-sync, so it has a target folder of its own.
part_loom() {
  RUSTFLAGS="--cfg loom" step loom cargo test --locked -p jetway-sync --target-dir "$TARGET/loom" --lib --tests
}

# With the debug profile's checks for overflow: what they find would go unseen in a release.
part_fuzz() {
  build_debug || return
  JETWAY_FUZZ_SECONDS=${FUZZ_SECONDS:-6} step fuzz cargo test --locked --workspace --test fuzz -- --test-threads=2
}

# The binaries and the tests of them in one go: on their own they would be built anew, with fewer features of dependencies.
build_debug() {
  [ -z "$built_debug" ] || return 0
  step build-debug cargo build --locked --workspace --bin jetway --bin jetway-perf --test fuzz --test e2e --test dispatch --test load --test nic && built_debug=1
}

# What is under test alone: each binary of a release is optimized once more with all its dependencies.
build_release() {
  [ -z "$built_release" ] || return 0
  step build-release cargo build --locked --release --workspace --bin jetway --bin jetway-perf-stages && built_release=1
}

# Counts of instructions do not depend on the machine's load, so they are checked where times cannot be.
part_budgets() {
  build_debug && build_release || return
  step budgets "$TARGET/debug/jetway-perf" budgets --stages "$TARGET/release/jetway-perf-stages"
}

part_e2e() {
  build_debug || return
  step e2e cargo test --locked --workspace --test e2e -- --test-threads="${E2E_THREADS:-4}"
}

# Loads of many requests and the time in which a dead server is found want few neighbours.
part_dispatch() {
  build_debug || return
  step dispatch cargo test --locked --workspace --test dispatch -- --test-threads=2
}

part_load() {
  build_debug && build_release || return
  JETWAY_BIN=$TARGET/release/jetway step load cargo test --locked --workspace --test load -- --test-threads=1
}

part_nic() {
  build_debug && build_release || return
  JETWAY_BIN=$TARGET/release/jetway step nic cargo test --locked --workspace --test nic -- --test-threads=2
}

# Cargo flags that name every integration test of the workspace but the given ones.
test_targets_beside() {
  local path name
  for path in {config,pipelines,pipelines/aead,pipelines/x25519,bindings,engine,engine/sync,control,perf,tests}/tests/{*.rs,*/main.rs}; do
    [ -e "$path" ] || continue
    name=${path##*/tests/} name=${name%/main.rs} name=${name%.rs}
    case " $* " in *" $name "*) ;; *) echo "--test $name" ;; esac
  done
}

mkdir -p "$LOGS"
for part in "$@"; do
  case $part in
    lint | pure | unit | loom | fuzz | budgets | e2e | dispatch | load | nic) "part_$part" ;;
    *) echo "tests/run.sh: no part '$part'" >&2; exit 2 ;;
  esac
done
[ "$skipped" = 0 ] || echo "$skipped skipped: see the SKIPPED lines above for what they lack"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
