#!/usr/bin/env bash
# Builds every program of a Kubernetes cluster into one static binary, $HEYUAN_CACHE/tools/kubernetes: once for a content of this folder and a Go.
# Where nothing has changed it takes a blink; cold it takes about six minutes on two idle cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/env.sh"
cd "$root/tests/kubernetes"

version=$(sed -n 's|^require k8s.io/kubernetes v||p; s|^\tk8s.io/kubernetes v||p' go.mod | head -1)
binary=$HEYUAN_CACHE/tools/kubernetes
stamp=$HEYUAN_CACHE/stamps/kubernetes
want=$({ cat go.mod go.sum main.go build.sh; go version; } | sha256sum)
[ -x "$binary" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0

say "building Kubernetes $version (about six minutes, once)"
mkdir -p "$HEYUAN_CACHE/tools" "$HEYUAN_CACHE/stamps"
# The compiler's cache grows to 5.6 GB for a binary of 135 MB that is built once: it is thrown away afterwards.
export GOCACHE=$HEYUAN_CACHE/tools/go-build CGO_ENABLED=0
trap 'rm -rf "$GOCACHE" "$binary.new"' EXIT
retry go mod download 2> >(grep -v '^go: downloading' >&2)
# Clients refuse to talk to a server that does not know its version.
of_version=k8s.io/component-base/version
minor=${version#*.}
nice go build -trimpath -buildvcs=false -o "$binary.new" \
  -ldflags "-s -w -X $of_version.gitVersion=v$version -X $of_version.gitMajor=${version%%.*} -X $of_version.gitMinor=${minor%%.*}" .
mv "$binary.new" "$binary"
printf '%s\n' "$want" >"$stamp"
