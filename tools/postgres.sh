#!/usr/bin/env bash
# Sees that PostgreSQL >= 15 is on this machine: on PATH, under /usr/lib/postgresql, or else by the Debian package.
# No system cluster is made or started: Cura EHR Sync runs private ones.
set -euo pipefail

oldest=15

major() { "$1" --version | sed -n 's/^.*) \([0-9]*\).*$/\1/p'; }

for server in "$(command -v postgres || true)" /usr/lib/postgresql/*/bin/postgres; do
  if [ -x "$server" ] && [ "$(major "$server")" -ge "$oldest" ]; then
    exit 0
  fi
done

if ! command -v apt-get >/dev/null; then
  echo "PostgreSQL >= $oldest is needed: install your system's PostgreSQL server package, put its postgres on PATH and run this again" >&2
  exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "PostgreSQL >= $oldest is needed: as root, run 'apt-get install postgresql', then run this again" >&2
    exit 1
  fi
  as_root=sudo
fi

echo "installing PostgreSQL from this system's packages" >&2
install() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2; }
$as_root apt-get update -q >&2
offered=$(apt-cache policy postgresql | sed -n 's/^ *Candidate: \([0-9]*\).*$/\1/p')
if [ "${offered:-0}" -lt "$oldest" ]; then
  echo "this system's package of PostgreSQL is older than $oldest: install a newer PostgreSQL server, put its postgres on PATH and run this again" >&2
  exit 1
fi
# The package makes and starts a system cluster unless it's told not to.
install postgresql-common
$as_root mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' | $as_root tee /etc/postgresql-common/createcluster.d/cura-ehr-sync.conf >/dev/null
install postgresql
