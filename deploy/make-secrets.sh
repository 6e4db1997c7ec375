#!/bin/sh
# Fills the volumes that services mount as /run/secrets. Runs at every `docker compose up`:
#
#   /settings/postgres, /settings/objects   random passwords, generated once
#   /settings/keyring                       the operator's key ring, or a new one, created once
#   /settings/api, /settings/worker         one file per setting, with these passwords and the operator's files
#                                           from deploy/secrets; TENCENTCLOUD_* only for the worker
#
# `make-secrets.sh demo` gives the worker the simulator's keys if it has no Tencent keys.
set -eu
# Tests set ROOT to another folder.
root=${ROOT:-}

make() {
  if [ ! -s "$1" ]; then
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$1.new"
    mv "$1.new" "$1"
  fi
}

# Copies the generated passwords first; the operator's settings replace them.
give() {
  rm -f "$1"/*
  cp objects/aws_access_key_id objects/aws_secret_access_key "$1"
  printf 'postgresql+asyncpg://faceid:%s@postgres:5432/faceid' "$(cat postgres/faceid_password)" >"$1/database_url"
  for file in "$root"/operator/*; do
    case $1/${file##*/} in
      api/tencentcloud_* | */keyring.json) ;;
      *) [ ! -f "$file" ] || cp "$file" "$1" ;;
    esac
  done
  chmod 0444 "$1"/*
}

cd "$root/settings"
if [ "${1:-}" = demo ]; then
  if [ -s worker/tencentcloud_secret_id ]; then
    echo "deploy/secrets contains Tencent keys, so the worker does not use the simulator."
  else
    python3 - <<'PYTHON'
from pathlib import Path

from simulator.options import DEMO_CREDENTIALS

worker = Path("worker")
(worker / "faceid_endpoint").write_text("http://simulator:8100")
(worker / "tencentcloud_secret_key").write_text(DEMO_CREDENTIALS.secret_key)
(worker / "tencentcloud_secret_id").write_text(DEMO_CREDENTIALS.secret_id)
PYTHON
  fi
else
  make postgres/postgres_password
  make postgres/faceid_password
  make objects/aws_access_key_id
  make objects/aws_secret_access_key
  mkdir -p keyring
  if [ ! -s keyring/keyring.json ]; then
    if [ -f "$root/operator/keyring.json" ]; then
      cp "$root/operator/keyring.json" keyring/keyring.json
    else
      KEYRING_FILE=$PWD/keyring/keyring.json faceid-results keyring new
    fi
    # Only services that mount the volume can read it.
    chmod 0444 keyring/keyring.json
  fi
  give api
  give worker
fi
