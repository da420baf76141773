#!/usr/bin/env bash
# Builds the releases that will come after this one, for tenants.sh: `next`, `after-next` and `broken`, each a patch of releases/ on the one
# before, each a build of the server, the operator and the chart. Takes a blink where neither sources nor patches have changed.
#
# Output: $HEYUAN_CACHE/releases/RELEASE/{heyuan,heyuan-operator,chart}.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/env.sh"
cd "$root"
out=$HEYUAN_CACHE/releases
releases=(next after-next broken)
built=$CARGO_TARGET_DIR/release
[ -x "$built/heyuan" ] || fail "build this release first: make build"

sources() { git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done; }
want=$({ rustc --version; sources | grep -zE '\.(rs|toml|lock|html|sql|wit|yaml|tpl|json|patch)$|/releases\.sh$' | LC_ALL=C sort -z | xargs -0 sha256sum; } | sha256sum)
[ "$(cat "$out/.fingerprint" 2>/dev/null)" != "$want" ] || exit 0
say "building the releases that come after this one"
rm -rf "$out"
mkdir -p "$out/target/release" "$out/source"
trap 'rm -rf "$out/target" "$out/source"' EXIT
# Cargo judges by times and by paths below the workspace, so that the copy finds everything built but what the patches touch.
sources | xargs -0 cp --parents --preserve=timestamps -t "$out/source"
(
  # No build may change what is being copied.
  flock 9
  # The compiler replaces its files but for lists of sources, and Cargo writes into its own: the former are shared, the latter copied.
  cp -al "$built/deps" "$out/target/release/"
  find "$out/target/release/deps" -name '*.d' -delete
  cp -a "$built/.fingerprint" "$built/build" "$out/target/release/"
) 9>>"$built/.cargo-lock"
cd "$out/source"
export CARGO_TARGET_DIR=$out/target
for release in "${releases[@]}"; do
  # Also where this folder lies within a checkout.
  GIT_CEILING_DIRECTORIES=$out git apply -C1 "$root/tests/kubernetes/releases/$release.patch" || fail "the patch of release $release no longer fits: see tests/kubernetes/releases"
  # The features of a whole build, so that no dependency is compiled anew.
  cargo build --quiet --release --workspace --bin heyuan --bin heyuan-operator
  install -D -t "$out/$release" "$CARGO_TARGET_DIR/release/heyuan" "$CARGO_TARGET_DIR/release/heyuan-operator"
  cp -r charts/heyuan "$out/$release/chart"
done
printf '%s\n' "$want" >"$out/.fingerprint"
