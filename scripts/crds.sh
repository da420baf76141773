#!/usr/bin/env bash
# Writes anew what comes from the operator's types: crds/, the chart's definitions, the tables of docs/operator.md and, where Helm is found
# (HEYUAN_CACHE/tools/bin or PATH), deploy/kustomize/operator.yaml. `make test` fails where they differ from the types.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$root"
HEYUAN_WRITE=1 cargo test --release -p heyuan-operator --test chart written::
git status --short -- crds charts deploy docs/operator.md
