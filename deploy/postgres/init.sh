#!/bin/sh
# Run once by the postgres image, when the data volume is new: Temporal's own role and databases. Cura's roles are made
# by `starter migrate --bootstrap-url` (README.md).
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set password `cat /run/secrets/temporal_password`
CREATE ROLE temporal LOGIN PASSWORD :'password';
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;
REVOKE CONNECT ON DATABASE cura, temporal, temporal_visibility FROM PUBLIC;
GRANT CONNECT ON DATABASE cura TO PUBLIC;
SQL
