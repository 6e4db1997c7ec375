#!/bin/sh
# Fills the volumes that the services see as /run/secrets, one for each audience, every time the composition comes up:
#
#   /settings/postgres, /settings/objects   random passwords, made once
#   /settings/keyring                       the key ring: the operator's keyring.json, or a new one, made once
#   /settings/api, /settings/worker         one file per setting: those passwords, and whatever the operator put into
#                                           deploy/secrets; TENCENTCLOUD_* for the worker only
#
# `make-secrets.sh demo` gives a worker that has no keys of Tencent the simulator's.
set -eu
root=${ROOT:-}  # for trying it elsewhere

make() {
  if [ ! -s "$1" ]; then
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$1.new"
    mv "$1.new" "$1"
  fi
}

give() { # from the generated passwords first, so that the operator's own settings win
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
    echo "deploy/secrets holds keys of Tencent: the worker does not turn to the simulator."
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
    chmod 0444 keyring/keyring.json  # whoever may read it is decided by where the volume is mounted
  fi
  give api
  give worker
fi
