-- +goose Up
-- What 00009_isolation.sql did for the tables of that time, for one that comes later: row level security, forced, by
-- app.org, and the grants of machinery. Every migration that makes a table with org_id calls it.
-- +goose StatementBegin
CREATE FUNCTION directory.isolate(t regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    own text := 'org_id = (SELECT nullif(current_setting(''app.org'', true), '''')::uuid)';
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_org ON %s TO cura_app, cura_reader USING (%s) WITH CHECK (%s)', t, own, own);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO cura_app', t);
END
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION directory.isolate FROM PUBLIC;

-- +goose Down
DROP FUNCTION directory.isolate;
