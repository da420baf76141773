#!/usr/bin/env bash
# Makes a container image FROM scratch, without an engine and without a registry: programs, the libraries that they link, and little else.
#
#   scripts/image.sh NAME:TAG FILE.tar PROGRAM...
#
# The first program is the entry point; each is found by its name under /usr/local/bin. It runs as user 65532 and may write to /tmp alone.
# The same programs give the same bytes. FILE.tar is what `docker load`, `podman load`, `ctr images import` and `skopeo` read.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: scripts/image.sh NAME:TAG FILE.tar PROGRAM..." >&2; exit 2; }
name=$1 archive=$(realpath -m "$2")
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
layer=$work/layer

"$(dirname "${BASH_SOURCE[0]}")/../deploy/stage.sh" "$layer" "$@"

# pack FOLDER FILE ENTRY...: nothing in it tells when and where it was made.
pack() {
  local folder=$1 file=$2
  shift 2
  tar --create --file "$file" --directory "$folder" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu "$@"
}

digest() { sha256sum "$1" | cut -d' ' -f1; }

pack "$layer" "$work/layer.tar" .
rm -rf "$layer"
cat >"$work/config.json" <<CONFIG
{"architecture": "$(dpkg --print-architecture)", "os": "linux", "created": "1970-01-01T00:00:00Z",
 "config": {"User": "65532:65532", "WorkingDir": "/tmp", "Entrypoint": ["/usr/local/bin/$(basename "$1")"], "Env": ["PATH=/usr/local/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(digest "$work/layer.tar")"]}}
CONFIG
config=$(digest "$work/config.json").json
mv "$work/config.json" "$work/$config"
printf '[{"Config": "%s", "RepoTags": ["%s"], "Layers": ["layer.tar"]}]\n' "$config" "$name" >"$work/manifest.json"
mkdir -p "$(dirname "$archive")"
pack "$work" "$archive" "$config" layer.tar manifest.json
