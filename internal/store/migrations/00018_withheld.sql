-- +goose Up
-- Which patients' clinical types a connection doesn't pull because of their consents (sync.connections.pull_consent), and the
-- hiding of what was read of them before. What hides is a policy for the roles that show records to people: the machinery,
-- cura_app, sees all rows, since it compares and writes them.
-- On a large database the policies take a moment's lock on each table, and no rewrite.

-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'cura_clinical') THEN
        RAISE EXCEPTION 'the role cura_clinical isn''t there yet: run starter migrate once with --bootstrap-url';
    END IF;
END
$$;
-- +goose StatementEnd

CREATE TABLE cura.withheld (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    profile_id    uuid NOT NULL,
    -- The clinical types that aren't pulled; a consent may deny some alone.
    types         text[] NOT NULL CHECK (cardinality(types) > 0),
    -- A consent.Code; unsettled: the policy has changed, and what the patient's consents say to it isn't decided yet.
    reason        text NOT NULL,
    since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (org_id, connection_id, profile_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id) ON DELETE CASCADE
);
CREATE INDEX withheld_by_profile ON cura.withheld (org_id, profile_id);
SELECT directory.isolate('cura.withheld'::regclass);

-- Patients of whom a search of the whole system has brought something that was withheld: the watermark has passed it, so they
-- are read whole once they permit.
CREATE TABLE sync.left_out (
    org_id         uuid NOT NULL,
    connection_id  uuid NOT NULL,
    resource_type  text NOT NULL,
    patient_ehr_id text NOT NULL,
    since          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (org_id, connection_id, resource_type, patient_ehr_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);
SELECT directory.isolate('sync.left_out'::regclass);

-- cura_clinical is what Cura's applications read records as.
GRANT USAGE ON SCHEMA cura, labs TO cura_clinical;
GRANT SELECT ON cura.profiles, cura.profile_identifiers, cura.allergies, cura.medications, labs.observations, cura.visits,
    cura.consent_log TO cura_clinical;
GRANT SELECT (org_id, connection_id, profile_id, types) ON cura.withheld TO cura_clinical;
-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['cura.profiles', 'cura.profile_identifiers', 'cura.allergies', 'cura.medications', 'labs.observations',
        'cura.visits', 'cura.consent_log', 'cura.withheld'] LOOP
        EXECUTE format('CREATE POLICY own_org_clinical ON %s FOR SELECT TO cura_clinical USING (
            org_id = (SELECT nullif(current_setting(''app.org'', true), '''')::uuid))', t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['cura.allergies', 'cura.medications', 'labs.observations', 'cura.visits'] LOOP
        EXECUTE format('CREATE POLICY not_withheld ON %1$s AS RESTRICTIVE FOR SELECT TO cura_clinical, cura_reader USING (NOT EXISTS (
            SELECT FROM cura.withheld w WHERE w.org_id = %1$s.org_id AND w.connection_id = %1$s.connection_id
                AND w.profile_id = %1$s.profile_id AND %1$s.resource_type = ANY (w.types)))', t);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- Another policy takes effect at once. Whose consents have to be read for it is hidden until that is done.
-- +goose StatementBegin
CREATE FUNCTION sync.pull_consent_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    clinical CONSTANT text[] := '{AllergyIntolerance,MedicationRequest,MedicationStatement,Observation,Encounter}';
BEGIN
    DELETE FROM cura.withheld WHERE org_id = NEW.org_id AND connection_id = NEW.connection_id;
    IF NEW.pull_consent = 'none' THEN
        RETURN NULL;
    END IF;
    -- Heads, so that periods that begin or end are noticed; the lock is that of Store.EnsureHead.
    PERFORM pg_advisory_xact_lock(hashtextextended('consent ' || NEW.org_id, 0));
    INSERT INTO cura.consent_heads (org_id, profile_id, entry_id)
    SELECT l.org_id, l.profile_id, max(l.entry_id) FROM cura.consent_log l WHERE l.org_id = NEW.org_id GROUP BY 1, 2
    ON CONFLICT DO NOTHING;
    INSERT INTO cura.withheld (org_id, connection_id, profile_id, types, reason)
    SELECT p.org_id, p.connection_id, p.profile_id, clinical, CASE WHEN p.spoken THEN 'unsettled' ELSE 'no-consent' END
    FROM (SELECT DISTINCT l.org_id, l.connection_id, l.profile_id,
            EXISTS (SELECT FROM cura.consent_log c WHERE c.org_id = l.org_id AND c.profile_id = l.profile_id) AS spoken
        FROM sync.patient_links l WHERE l.org_id = NEW.org_id AND l.connection_id = NEW.connection_id) AS p
    WHERE p.spoken OR NEW.pull_consent = 'opt-in';
    INSERT INTO directory.wakeups (org_id, kind, ref)
    SELECT w.org_id, 'consent', w.profile_id FROM cura.withheld w
    WHERE w.org_id = NEW.org_id AND w.connection_id = NEW.connection_id AND w.reason = 'unsettled' ORDER BY w.profile_id
    ON CONFLICT (org_id, kind, ref) DO UPDATE
        SET due_at = least(directory.wakeups.due_at, excluded.due_at), seq = directory.wakeups.seq + 1;
    PERFORM pg_notify('cura_wakeups', 'consent');
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER pull_consent_changed AFTER UPDATE OF pull_consent ON sync.connections
    FOR EACH ROW WHEN (OLD.pull_consent <> NEW.pull_consent) EXECUTE FUNCTION sync.pull_consent_changed();

-- +goose Down
DROP TRIGGER pull_consent_changed ON sync.connections;
DROP FUNCTION sync.pull_consent_changed;
-- +goose StatementBegin
DO $$
DECLARE
    p record;
BEGIN
    FOR p IN SELECT schemaname, tablename, policyname FROM pg_catalog.pg_policies
        WHERE policyname IN ('own_org_clinical', 'not_withheld') LOOP
        EXECUTE format('DROP POLICY %I ON %I.%I', p.policyname, p.schemaname, p.tablename);
    END LOOP;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON ALL TABLES IN SCHEMA cura, labs FROM cura_clinical;
REVOKE USAGE ON SCHEMA cura, labs FROM cura_clinical;
DROP TABLE sync.left_out, cura.withheld;
