#!/bin/sh
# Fills the volumes that services mount as /run/secrets. Runs at every `docker compose up`:
#
#   /settings/postgres, /settings/objects   random passwords, generated once
#   /settings/keyring                       the operator's key ring from deploy/secrets, or a new one; created once
#   /settings/api, /settings/worker         one file per setting, with these passwords and the operator's files
#                                           from deploy/secrets; TENCENTCLOUD_* only for the worker
#
# Only the API has OIDC_*. /settings/grafana has a random password as well. In addition, /settings/migrate has the settings of the database, with the role that owns the tables.
#
# `make-secrets.sh demo` gives the worker the simulator's keys, and API and worker the demo's RuleId. It fails if the
# worker has Tencent keys.
set -eu
# Tests set ROOT to another folder.
root=${ROOT:-}

make() {
  if [ ! -s "$1" ]; then
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$1.new"
    mv "$1.new" "$1"
  fi
}

# The API may only read objects. Both identities are limited to our bucket.
permit() {
  cat <<JSON
{"name": "$1", "actions": [$3], "credentials": [
  {"accessKey": "$(cat "objects/$2aws_access_key_id")", "secretKey": "$(cat "objects/$2aws_secret_access_key")"}]}
JSON
}

# Copies the generated passwords first; the operator's settings replace them.
give() {
  rm -f "$1"/*
  cp "objects/$2aws_access_key_id" "$1/aws_access_key_id"
  cp "objects/$2aws_secret_access_key" "$1/aws_secret_access_key"
  printf 'postgresql+asyncpg://faceid:%s@postgres:5432/faceid' "$(cat postgres/faceid_password)" >"$1/database_url"
  for file in "$root"/operator/*; do
    case $1/${file##*/} in
      api/tencentcloud_* | worker/oidc_* | */keyring.json | */database_owner_url) ;;
      *) [ ! -f "$file" ] || cp "$file" "$1" ;;
    esac
  done
  chmod 0444 "$1"/*
}

# The operator's database_owner_url or database_url replaces the one of our Postgres.
give_owner() {
  rm -f migrate/*
  if [ ! -f "$root/operator/database_url" ]; then
    printf 'postgresql+asyncpg://faceid_owner:%s@postgres:5432/faceid' "$(cat postgres/owner_password)" >migrate/database_url
    printf faceid >migrate/database_service_role
  fi
  for name in database_url database_listen_url database_service_role; do
    [ ! -f "$root/operator/$name" ] || cp "$root/operator/$name" migrate
  done
  if [ -f "$root/operator/database_owner_url" ]; then
    cp "$root/operator/database_owner_url" migrate/database_url
    rm -f migrate/database_listen_url
  fi
  chmod 0444 migrate/*
}

# Creates the key ring once. Later only `keyring rotate` changes it.
make_keyring() {
  operators=$root/operator/keyring.json
  if [ ! -s keyring/keyring.json ]; then
    if [ -f "$operators" ]; then
      cp "$operators" keyring/keyring.json
    else
      KEYRING_FILE=$PWD/keyring/keyring.json faceid-results keyring new
    fi
    # Only services that mount the volume can read it.
    chmod 0444 keyring/keyring.json
  fi
  [ -f "$operators" ] || return 0
  # An operator's copy that was used once stays valid, although rotations change the key ring in the volume.
  digest=$(sha256sum <"$operators")
  if cmp -s "$operators" keyring/keyring.json; then
    echo "$digest" >keyring/operators.sha256
  elif [ "$digest" != "$(cat keyring/operators.sha256 2>/dev/null)" ]; then
    cat >&2 <<'TEXT'
deploy/secrets/keyring.json is not the key ring in use: the service created another one before this file was placed.
To use your file, for example while you restore a backup, set the other key ring aside and start again:
  docker compose run --rm --no-deps --entrypoint mv keyring /run/keyring/keyring.json /run/keyring/unused.json
To keep the key ring in use, remove deploy/secrets/keyring.json.
TEXT
    exit 1
  fi
}

cd "$root/settings"
if [ "${1:-}" = demo ]; then
  if [ -s worker/tencentcloud_secret_id ]; then
    echo "The demo cannot run: deploy/secrets contains Tencent keys, and the demo's tokens exist only in the simulator." >&2
    exit 1
  else
    python3 - <<'PYTHON'
from pathlib import Path

from simulator.options import DEMO_CREDENTIALS

worker = Path("worker")
(worker / "faceid_endpoint").write_text("http://simulator:8100")
(worker / "tencentcloud_secret_key").write_text(DEMO_CREDENTIALS.secret_key)
(worker / "tencentcloud_secret_id").write_text(DEMO_CREDENTIALS.secret_id)
for service in (Path("api"), worker):
    rule = service / "faceid_rule_id"
    if not rule.exists():
        rule.write_text("1")
PYTHON
  fi
else
  make postgres/postgres_password
  make postgres/owner_password
  make postgres/faceid_password
  make objects/aws_access_key_id
  make objects/aws_secret_access_key
  make objects/reader_aws_access_key_id
  make objects/reader_aws_secret_access_key
  mkdir -p keyring migrate grafana
  make grafana/grafana_admin_password
  make_keyring
  bucket=faceid-results
  printf '{"identities": [%s, %s]}' \
    "$(permit worker '' "\"Read:$bucket\", \"List:$bucket\", \"Write:$bucket\"")" \
    "$(permit api reader_ "\"Read:$bucket\", \"List:$bucket\"")" >objects/s3.json
  # The object store runs as another user.
  chmod 0444 objects/s3.json
  give api reader_
  give worker ''
  give_owner
fi
