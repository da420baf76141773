#!/usr/bin/env bash
# Format, lints, documentation and dependencies; the tidy test is one of `make test`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
say format
cargo fmt --all --check
for manifest in "${plugin_workspaces[@]}"; do cargo fmt --all --check --manifest-path "$manifest"; done
say lints
cargo clippy --release --workspace --all-targets -- -D warnings
say documentation
RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
say dependencies
# Why advisories are not among these stands in deny.toml.
"$HEYUAN_CACHE/tools/bin/cargo-deny" --log-level warn check licenses bans sources
