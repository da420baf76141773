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

# libraries PROGRAM: the files that the loader would open, and the loader itself; none of a static program.
libraries() { ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true; }

mkdir -p "$layer"/{etc/ssl/certs,usr/local/bin}
install -d -m 1777 "$layer/tmp"
printf 'root:x:0:0::/:/\nheyuan:x:65532:65532::/tmp:/\n' >"$layer/etc/passwd"
printf 'root:x:0:\nheyuan:x:65532:\n' >"$layer/etc/group"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$layer/etc/ssl/certs/"
for program in "$@"; do
  [ -x "$program" ] || { echo "error: $program is no program" >&2; exit 1; }
  install -m 0755 "$program" "$layer/usr/local/bin/"
  for library in $(libraries "$program"); do install -D -m 0755 "$library" "$layer$library"; done
done

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
