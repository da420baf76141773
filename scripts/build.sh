#!/usr/bin/env bash
# Builds the binaries and the plugins: binaries under target/release, components under $HEYUAN_CACHE/plugins.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
# The whole workspace, so that a dependency has the same features here as in `make test` and is compiled once.
cargo build --release --workspace --bins
plugins/build.sh
