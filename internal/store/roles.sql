-- The cluster's roles (docs: deploy/postgres/README.md). Run by a superuser, again as often as you like.
--   cura_owner     owns every schema and table; nobody logs in as it
--   cura_app       reads and writes one org at a time, under row level security; owns nothing
--   cura_dispatch  reads the directory across orgs, and nothing else
--   cura_reader    reads one org at a time, without the columns that hold PHI
--   cura_clinical  reads one org's records, but for those that a patient's consents withhold: what Cura's applications are
-- and the two that log in. They inherit nothing: each transaction says with SET LOCAL ROLE what it is.
--   cura_migrator  may become cura_owner
--   cura_worker    may become cura_app or cura_dispatch
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['cura_owner', 'cura_app', 'cura_dispatch', 'cura_reader', 'cura_clinical'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', name);
        END IF;
    END LOOP;
    FOREACH name IN ARRAY ARRAY['cura_migrator', 'cura_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', name);
        END IF;
    END LOOP;
END
$$;

GRANT cura_owner TO cura_migrator;
GRANT cura_app, cura_dispatch TO cura_worker;
