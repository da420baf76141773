# Where Heyuan's builds and tools live; sourced by the Makefile's scripts, never run by itself.
# Everything that is not source goes under HEYUAN_CACHE, so that a checkout stays small and a second one is warm.

HEYUAN_CACHE=${HEYUAN_CACHE:-$HOME/.cache/heyuan}
CARGO_TARGET_DIR=$HEYUAN_CACHE/target
# rustup's tools go first: Debian's rustc-web puts an older /usr/bin/rustc on the machine, which is for the plugins only.
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
export HEYUAN_CACHE CARGO_TARGET_DIR PATH

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Workspaces of their own, beside the one at the root.
plugin_workspaces=("$root/plugins/sdk/rust/Cargo.toml" "$root/plugins/examples/Cargo.toml")

say() { printf '== %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# retry COMMAND...: three attempts, for steps that cross a network.
retry() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return 0
    say "attempt $attempt failed: $*"
    sleep $((attempt * 5))
  done
  return 1
}

# Cargo takes a workspace crate for fresh by its time stamps and names its outputs alike in every checkout, so that what another checkout
# built could pass for ours: whoever comes after another makes all its sources new.
if [ "$(cat "$HEYUAN_CACHE/checkout" 2>/dev/null)" != "$root" ]; then
  mkdir -p "$HEYUAN_CACHE"
  (cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 touch --no-create)
  printf '%s' "$root" >"$HEYUAN_CACHE/checkout"
fi
