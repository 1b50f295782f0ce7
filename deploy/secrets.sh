#!/usr/bin/env bash
# Makes the passwords that docker-compose.yml reads from files: sudo deploy/secrets.sh DIR
# Root owns DIR and nobody else may enter it; each container sees only the files that it's given. What is there already
# is kept, so running this again never locks anybody out. The key that seals credentials is made by `starter keygen`.
set -euo pipefail

dir=${1:?the folder to make, such as /etc/cura-ehr-sync/secrets}
worker_uid=65532

umask 077
mkdir -p "$dir"
password() { # the containers' users differ, so the file is open; the folder isn't
  [ -e "$dir/$1" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$dir/$1"
  chmod 0444 "$dir/$1"
}
for name in postgres_password temporal_password migrator_password worker_password alert_webhook; do password "$name"; done

{
  echo "postgres:5432:cura:postgres:$(cat "$dir/postgres_password")"
  echo "postgres:5432:cura:cura_migrator:$(cat "$dir/migrator_password")"
} >"$dir/migrate_pgpass"
echo "postgres:5432:cura:cura_worker:$(cat "$dir/worker_password")" >"$dir/worker_pgpass"

own=("$dir/migrate_pgpass" "$dir/worker_pgpass")
if [ -e "$dir/key" ]; then
  own+=("$dir/key")
else
  echo "now make the key with 'starter keygen', put it at $dir/key, and run this again"
fi
chmod 0400 "${own[@]}"
chown "$worker_uid:$worker_uid" "${own[@]}"
