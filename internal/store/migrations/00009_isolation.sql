-- +goose Up
-- Row level security on every table with an org, forced so that the owner is held to it too. app.org is set for one
-- transaction; without it nothing is seen. The sub-select is evaluated once a statement, not once a row.
-- +goose StatementBegin
DO $$
DECLARE
    t regclass;
    own text := 'org_id = (SELECT nullif(current_setting(''app.org'', true), '''')::uuid)';
BEGIN
    FOR t IN
        SELECT c.oid::regclass
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
        WHERE c.relkind = 'r' AND c.relnamespace::regnamespace::text IN ('directory', 'cura', 'labs', 'sync', 'audit')
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY own_org ON %s TO cura_app, cura_reader USING (%s) WITH CHECK (%s)', t, own, own);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- The directory is the only thing read across orgs, and only by dispatch.
CREATE POLICY dispatch_reads ON directory.orgs FOR SELECT TO cura_dispatch USING (true);
CREATE POLICY dispatch_reads ON directory.connections FOR SELECT TO cura_dispatch USING (true);
-- An org's transaction may see the org that it rehearses for, or that rehearses for it: the two share a hospital.
CREATE POLICY own_pair ON directory.orgs TO cura_app
    USING (live_org_id = (SELECT nullif(current_setting('app.org', true), '')::uuid))
    WITH CHECK (live_org_id = (SELECT nullif(current_setting('app.org', true), '')::uuid));

GRANT USAGE ON SCHEMA directory TO cura_app, cura_dispatch;
GRANT USAGE ON SCHEMA cura, labs, sync, audit TO cura_app, cura_reader;

GRANT SELECT ON directory.orgs, directory.connections TO cura_dispatch;
GRANT SELECT, INSERT ON directory.orgs TO cura_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON directory.connections TO cura_app;

GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA sync TO cura_app;
GRANT SELECT, INSERT, UPDATE ON cura.profiles, cura.profile_identifiers, cura.allergies, cura.medications,
    labs.observations, cura.visits TO cura_app;
GRANT SELECT, INSERT ON cura.consent_log, audit.records TO cura_app;
GRANT SELECT, INSERT, UPDATE ON audit.heads TO cura_app;

-- Deleting: machinery anywhere; records only in a sandbox org, whose pilot data is purged.
GRANT DELETE ON sync.credentials, sync.type_switches, sync.cursors, sync.watermarks, sync.leases, sync.pilot_choices,
    cura.profile_identifiers TO cura_app;
GRANT DELETE ON cura.profiles, cura.allergies, cura.medications, labs.observations, cura.visits, cura.consent_log,
    sync.patient_links, sync.landing, sync.resources, sync.quarantine, sync.reviews, sync.pilot_patients,
    sync.run_counts, sync.runs TO cura_app;
-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['cura.profiles', 'cura.allergies', 'cura.medications', 'labs.observations', 'cura.visits',
        'cura.consent_log', 'sync.patient_links', 'sync.landing', 'sync.resources', 'sync.quarantine', 'sync.reviews',
        'sync.pilot_patients', 'sync.run_counts', 'sync.runs'] LOOP
        EXECUTE format('CREATE POLICY purge_in_sandbox_only ON %s AS RESTRICTIVE FOR DELETE TO cura_app USING (
            EXISTS (SELECT FROM directory.orgs o WHERE o.org_id = %s.org_id AND o.kind = ''sandbox''))', t, t);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- What someone without a need for PHI may read: how the machinery runs, never whose data it moves.
GRANT SELECT ON sync.runs, sync.run_counts, sync.watermarks, sync.leases, sync.dead_letters, sync.type_switches,
    sync.endpoint_tests, audit.heads, audit.records TO cura_reader;
GRANT SELECT (org_id, connection_id, name, base_url, token_url, client_id, scopes, match_by, match_system, ehr_profile,
    types, phase, health, waits_for, why, commands, attention_since, sync_interval, created_at, updated_at, removed_at)
    ON sync.connections TO cura_reader;
GRANT SELECT (org_id, quarantine_id, connection_id, resource_type, landing_id, reasons, opened_at, closed_at)
    ON sync.quarantine TO cura_reader;
GRANT SELECT (org_id, review_id, connection_id, resource_type, landing_id, reason, opened_at, closed_at)
    ON sync.reviews TO cura_reader;

-- +goose Down
-- +goose StatementBegin
DO $$
DECLARE
    p record;
BEGIN
    FOR p IN SELECT schemaname, tablename, policyname FROM pg_catalog.pg_policies
        WHERE schemaname IN ('directory', 'cura', 'labs', 'sync', 'audit') LOOP
        EXECUTE format('DROP POLICY %I ON %I.%I', p.policyname, p.schemaname, p.tablename);
        EXECUTE format('ALTER TABLE %I.%I NO FORCE ROW LEVEL SECURITY', p.schemaname, p.tablename);
        EXECUTE format('ALTER TABLE %I.%I DISABLE ROW LEVEL SECURITY', p.schemaname, p.tablename);
    END LOOP;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON ALL TABLES IN SCHEMA directory, cura, labs, sync, audit FROM cura_app, cura_dispatch, cura_reader;
REVOKE USAGE ON SCHEMA directory, cura, labs, sync, audit FROM cura_app, cura_dispatch, cura_reader;
