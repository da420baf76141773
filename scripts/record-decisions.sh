#!/usr/bin/env bash
# Records what is decided in the new cases of core/server/tests/decisions and lists the digest of every new file in recorded.lock.
# A case is a JSON file in cases/ with `about`, `starts_at` and `steps`, and no `recorded` yet. What is listed already stays as it is: a test
# fails when such a file is edited or vanishes, or when today's code decides otherwise.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
corpus=core/server/tests/decisions
# The compiler of plugins is the program itself.
cargo build --release --workspace --bins
HEYUAN_RECORD_DECISIONS=yes cargo test --release --workspace --lib -- recorded_decisions_are_decided_alike
cd "$corpus"
while IFS= read -r file; do
  grep -qF "  $file" recorded.lock || sha256sum "$file" >>recorded.lock
done < <(find cases components -type f | LC_ALL=C sort)
LC_ALL=C sort -k2 -o recorded.lock recorded.lock
