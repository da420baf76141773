#!/usr/bin/env bash
# Adds the digest of every migration that ships for the first time to tests/it/migrations.lock; run it before a release.
# What is listed already stays as it is: the tidy test fails when such a file is edited or vanishes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
lock=tests/it/migrations.lock
touch "$lock"
while IFS= read -r migration; do
  grep -qF "  $migration" "$lock" || sha256sum "$migration" >>"$lock"
done < <(find . -path ./target -prune -o -path '*/migration/m*.rs' ! -name mod.rs -print | sed 's|^\./||' | LC_ALL=C sort)
LC_ALL=C sort -k2 -o "$lock" "$lock"
