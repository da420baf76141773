#!/usr/bin/env bash
# Lays out what an image FROM scratch holds: programs, the libraries that they link, certificates of authorities, and a user.
#
#   deploy/stage.sh FOLDER PROGRAM...
#
# The programs are those of `make build`. Nothing is downloaded: the libraries are this machine's, so build on the distribution whose libraries
# you want in the image. A statically linked program brings none.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: deploy/stage.sh FOLDER PROGRAM..." >&2; exit 2; }
folder=$1
shift
for program in "$@"; do [ -x "$program" ] || { echo "error: $program is no program; run \`make build\` first" >&2; exit 1; }; done
case $folder in "" | /) echo "error: $folder can't be the folder" >&2; exit 2 ;; esac

mkdir -p "$folder"
[ -z "$(ls -A "$folder")" ] || { echo "error: $folder is not empty" >&2; exit 1; }
mkdir -p "$folder"/{etc/ssl/certs,usr/local/bin}
install -d -m 1777 "$folder/tmp"
printf 'root:x:0:0::/:/\nheyuan:x:65532:65532::/tmp:/\n' >"$folder/etc/passwd"
printf 'root:x:0:\nheyuan:x:65532:\n' >"$folder/etc/group"
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"
for program in "$@"; do
  install -m 0755 "$program" "$folder/usr/local/bin/"
  # What the loader would open, and the loader itself. They are put under the paths by which it looks for them.
  { ldd "$program" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r library; do
    install -D -m 0755 "$library" "$folder$library"
  done
done
