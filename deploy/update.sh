#!/bin/sh
# Replaces the containers of the API and then of the workers one at a time by new ones of the current image and settings.
# No request fails, because the proxy knows each new container before an old one stops. The scale stays the same.
#
#   docker compose build --pull
#   docker compose run --rm --no-deps migrate
#   sh deploy/update.sh
#
# If a new container does not become healthy, the script removes it, prints its log and exits with 1. COMPOSE names the
# command of Compose: COMPOSE=docker-compose for version 1.29.
set -eu
cd "$(dirname "$0")/.."
compose=${COMPOSE:-docker compose}
# The proxy resolves the name of the API again after 2 s.
known_seconds=4
start_seconds=90

state() {
  docker inspect --format '{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' "$1"
}

# Waits until a container is healthy, or running if it has no health check.
await() {
  for _ in $(seq "$start_seconds"); do
    case $(state "$1") in
      healthy | running) return ;;
      exited | dead | unhealthy | restarting) break ;;
    esac
    sleep 1
  done
  give_up "$1"
}

give_up() {
  echo "The new container does not become healthy. Its log ends with:" >&2
  docker logs --tail 20 "$1" >&2
  docker rm --force "$1" >/dev/null
  exit 1
}

replace() {
  old=$($compose ps -q "$1")
  count=$(echo "$old" | grep -c .) || return 0
  for id in $old; do
    before=$($compose ps -q "$1")
    $compose up --detach --no-deps --no-recreate --scale "$1=$((count + 1))" "$1"
    new=$($compose ps -q "$1" | grep -vxF "$before")
    await "$new"
    sleep "$known_seconds"
    # A container without a health check runs before it has read its settings. By now it may have failed and restarted.
    if [ "$(docker inspect --format '{{.RestartCount}}' "$new")" != 0 ]; then
      give_up "$new"
    fi
    await "$new"
    docker stop --time 30 "$id" >/dev/null
    docker rm "$id" >/dev/null
  done
}

replace api
replace worker
