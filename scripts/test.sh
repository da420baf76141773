#!/usr/bin/env bash
# Runs every test there is and ends with one line that adds them all up: "N passed, N failed".
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
scripts/build.sh
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0

# suite COMMAND...: runs one `cargo test` in full view and adds its result lines to the total.
suite() {
  local status=0 suite_passed suite_failed
  "$@" 2>&1 | tee "$log" || status=$?
  read -r suite_passed suite_failed < <(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$log")
  # A suite that does not compile or is killed has failed, whatever it counted before.
  if [ "$status" -ne 0 ] && [ "$suite_failed" -eq 0 ]; then suite_failed=1; fi
  passed=$((passed + suite_passed)) failed=$((failed + suite_failed))
}

suite cargo test --release --workspace --no-fail-fast
# Plugins have their own workspace, since they are compiled for WebAssembly; their rules are tested natively.
while IFS= read -r manifest; do
  suite cargo test --release --no-fail-fast --manifest-path "$manifest"
done < <(find plugins/sdk plugins/examples -maxdepth 2 -name Cargo.toml 2>/dev/null | sort)

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
