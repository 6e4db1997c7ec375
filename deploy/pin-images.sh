#!/bin/sh
# Writes the current digest of each third-party image behind its tag, in docker-compose.yml and Dockerfile. `make pin-images`
# runs it. It needs docker with buildx, and access to the registries. It changes nothing if one digest cannot be read.
set -eu
cd "$(dirname "$0")/.."
script=$(mktemp)
trap 'rm -f "$script"' EXIT
for image in $(sed -n -e 's/^ *image: \([a-z][^ ]*\)$/\1/p' -e 's/^ARG PYTHON=//p' docker-compose.yml Dockerfile); do
  tag=${image%@*}
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$tag") || digest=
  if ! printf '%s\n' "$digest" | grep -Eqx 'sha256:[0-9a-f]{64}'; then
    echo "The digest of $tag cannot be read. Nothing was changed. Check that its registry can be reached." >&2
    exit 1
  fi
  # The tag at the end of a line, with or without an earlier digest.
  printf 's|\\([ =]%s\\)\\(@sha256:[0-9a-f]*\\)\\{0,1\\}$|\\1@%s|\n' "$(printf %s "$tag" | sed 's/\./\\./g')" "$digest" >>"$script"
done
for file in docker-compose.yml Dockerfile; do
  # Into the same file, so it keeps its mode.
  changed=$(sed -f "$script" "$file")
  printf '%s\n' "$changed" >"$file"
done
