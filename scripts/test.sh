#!/usr/bin/env bash
# Runs every test there is and ends with one line that adds them all up: "N passed, N failed".
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
plugins/build.sh
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

# This also builds the binary that the tests run: heyuan-server has a test of its own.
suite cargo test --release --workspace --no-fail-fast
# Plugins have their own workspaces, since they are compiled for WebAssembly; what tests they have run natively.
for manifest in "${plugin_workspaces[@]}"; do
  if grep -rq --include='*.rs' '#\[test\]' "$(dirname "$manifest")"; then
    suite env CARGO_TARGET_DIR="$HEYUAN_CACHE/plugins/target/native" \
      cargo test --release --locked --workspace --no-fail-fast --manifest-path "$manifest"
  fi
done

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
