-- +goose Up
-- What a person is asked about a patient, and what they have decided. A decision holds for the version that it was made about:
-- it isn't asked again until the content changes.
ALTER TABLE sync.reviews
    ADD COLUMN kind text NOT NULL DEFAULT 'match' CHECK (kind IN ('match', 'merge', 'split', 'conflict')),
    -- Of the version that is asked about.
    ADD COLUMN content_hash bytea,
    ADD COLUMN decision text CHECK (decision IN ('keep-ehr', 'keep-cura', 'merge', 'link', 'new')),
    -- The profile that was decided for.
    ADD COLUMN chosen uuid,
    ADD COLUMN decided_by text NOT NULL DEFAULT '',
    ADD COLUMN decided_at timestamptz,
    -- When the decision took effect; it never does where another version came before.
    ADD COLUMN applied_at timestamptz,
    ADD CONSTRAINT decided_by_somebody CHECK ((decision IS NULL) = (decided_at IS NULL) AND (decision IS NULL) = (decided_by = '')),
    ADD CONSTRAINT applied_after_decided CHECK (applied_at IS NULL OR decided_at IS NOT NULL);
UPDATE sync.reviews r SET content_hash = l.content_hash FROM sync.landing l WHERE l.org_id = r.org_id AND l.landing_id = r.landing_id;
CREATE INDEX reviews_decided ON sync.reviews (org_id, connection_id, resource_type, ehr_id, content_hash) WHERE decided_at IS NOT NULL;
GRANT SELECT (kind, decision, decided_by, decided_at, applied_at) ON sync.reviews TO cura_reader;

-- Whose a record is, by the patient at the EHR: a link that moves takes along what hangs on it. Empty in rows from before: such
-- a row is of the only patient of its connection who is linked to its profile.
ALTER TABLE cura.allergies ADD COLUMN patient_ehr_id text NOT NULL DEFAULT '';
ALTER TABLE cura.medications ADD COLUMN patient_ehr_id text NOT NULL DEFAULT '';
ALTER TABLE labs.observations ADD COLUMN patient_ehr_id text NOT NULL DEFAULT '';
ALTER TABLE cura.visits ADD COLUMN patient_ehr_id text NOT NULL DEFAULT '';

-- Of a connection's patients who share a profile each has identifiers of their own.
ALTER TABLE cura.profile_identifiers ADD COLUMN patient_ehr_id text NOT NULL DEFAULT '';
-- Whose a consent is decides where it counts: what a patient refuses goes along when their link moves.
ALTER TABLE cura.consent_log
    ADD COLUMN patient_ehr_id text NOT NULL DEFAULT '',
    -- An entry that a move has made, of a version that was logged before.
    ADD COLUMN moved boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT consent_log_org_id_landing_id_key;
CREATE UNIQUE INDEX consent_log_by_landing ON cura.consent_log (org_id, landing_id) WHERE NOT moved;

ALTER TABLE sync.patient_links
    -- The patient into whom the EHR has merged this one, once Cura has followed; empty: none.
    ADD COLUMN replaced_by text NOT NULL DEFAULT '',
    -- Whose the patient was before the link was moved.
    ADD COLUMN moved_from uuid,
    ADD COLUMN moved_at timestamptz,
    DROP CONSTRAINT patient_links_matched_by_check,
    ADD CONSTRAINT patient_links_matched_by_check CHECK (matched_by IN ('new', 'mrn', 'national-id', 'cura-id', 'review', 'merge'));

ALTER TABLE cura.profiles
    -- When Cura itself changed what it shows, after the EHR's version that connection_id, ehr_id and landing_id tell; null: it didn't.
    ADD COLUMN changed_at timestamptz,
    -- The profile that the last of its patients was moved to; nobody is matched with a profile that has been merged.
    ADD COLUMN merged_into uuid,
    ADD FOREIGN KEY (org_id, merged_into) REFERENCES cura.profiles (org_id, profile_id);

-- What Cura changed in a profile, and who: append-only.
CREATE TABLE cura.profile_changes (
    org_id     uuid NOT NULL,
    change_id  bigint GENERATED ALWAYS AS IDENTITY,
    profile_id uuid NOT NULL,
    -- The elements that were changed, as paths such as name.family; never values.
    elements   text[] NOT NULL,
    -- The record whole, before and after (internal/cura.Profile).
    before     json NOT NULL,
    after      json NOT NULL,
    actor      text NOT NULL CHECK (actor <> ''),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (org_id, change_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id) ON DELETE CASCADE
);
CREATE INDEX profile_changes_by_profile ON cura.profile_changes (org_id, profile_id);
SELECT directory.isolate('cura.profile_changes'::regclass);
REVOKE UPDATE, DELETE ON cura.profile_changes FROM cura_app;

-- +goose Down
DROP TABLE cura.profile_changes;
ALTER TABLE cura.profiles DROP COLUMN merged_into, DROP COLUMN changed_at;
ALTER TABLE sync.patient_links DROP CONSTRAINT patient_links_matched_by_check;
UPDATE sync.patient_links SET matched_by = 'new' WHERE matched_by IN ('review', 'merge');
ALTER TABLE sync.patient_links
    ADD CONSTRAINT patient_links_matched_by_check CHECK (matched_by IN ('new', 'mrn', 'national-id', 'cura-id')),
    DROP COLUMN moved_at, DROP COLUMN moved_from, DROP COLUMN replaced_by;
DROP INDEX cura.consent_log_by_landing;
DELETE FROM cura.consent_log WHERE moved;
ALTER TABLE cura.consent_log DROP COLUMN moved, DROP COLUMN patient_ehr_id, ADD UNIQUE (org_id, landing_id);
ALTER TABLE cura.profile_identifiers DROP COLUMN patient_ehr_id;
ALTER TABLE cura.visits DROP COLUMN patient_ehr_id;
ALTER TABLE labs.observations DROP COLUMN patient_ehr_id;
ALTER TABLE cura.medications DROP COLUMN patient_ehr_id;
ALTER TABLE cura.allergies DROP COLUMN patient_ehr_id;
DROP INDEX sync.reviews_decided;
ALTER TABLE sync.reviews DROP CONSTRAINT applied_after_decided, DROP CONSTRAINT decided_by_somebody, DROP COLUMN applied_at,
    DROP COLUMN decided_at, DROP COLUMN decided_by, DROP COLUMN chosen, DROP COLUMN decision, DROP COLUMN content_hash, DROP COLUMN kind;
