-- +goose Up
-- Consent as it stands for a patient, and what waits for the machinery. DESIGN §5.4 is the protocol; internal/store/halt.go
-- says which statement is which step.

-- What is to be looked at, by whom, from when on: the relay and the sweeps read it across orgs. Opaque ids only.
CREATE TABLE directory.wakeups (
    org_id        uuid NOT NULL REFERENCES directory.orgs (org_id),
    -- delivery: ref is a patient link whose queue isn't empty. consent: ref is a profile whose consent has to be settled.
    kind          text NOT NULL CHECK (kind IN ('delivery', 'consent')),
    ref           uuid NOT NULL,
    connection_id uuid,
    due_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Grows with each reason to wake, so that who has done all that was there can tell whether more has come.
    seq           bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (org_id, kind, ref),
    CHECK ((kind = 'delivery') = (connection_id IS NOT NULL))
);
CREATE INDEX wakeups_due ON directory.wakeups (kind, due_at);
SELECT directory.isolate('directory.wakeups'::regclass);
CREATE POLICY dispatch_reads ON directory.wakeups FOR SELECT TO cura_dispatch USING (true);
GRANT SELECT ON directory.wakeups TO cura_dispatch;

-- The log takes Cura's own consents as well as those that were pulled.
ALTER TABLE cura.consent_log
    ALTER COLUMN connection_id DROP NOT NULL,
    ALTER COLUMN ehr_id DROP NOT NULL,
    ALTER COLUMN landing_id DROP NOT NULL,
    ALTER COLUMN mapping_version DROP NOT NULL,
    ADD COLUMN source text NOT NULL DEFAULT 'ehr' CHECK (source IN ('ehr', 'cura')),
    -- Of a consent made in Cura: which one this is an entry of, and who made it.
    ADD COLUMN consent_id uuid,
    ADD COLUMN actor text NOT NULL DEFAULT '',
    ADD COLUMN actor_role text NOT NULL DEFAULT '',
    ADD CONSTRAINT entry_has_a_source CHECK (CASE source
        WHEN 'ehr' THEN connection_id IS NOT NULL AND ehr_id IS NOT NULL AND landing_id IS NOT NULL AND consent_id IS NULL
        ELSE consent_id IS NOT NULL AND ehr_id IS NULL AND landing_id IS NULL AND actor <> '' END);

-- The consent head: one row for each patient of an org. Whoever sends holds it FOR SHARE; whoever changes consent locks it
-- and moves the epoch.
CREATE TABLE cura.consent_heads (
    org_id      uuid NOT NULL,
    profile_id  uuid NOT NULL,
    epoch       bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    -- The last entry of the log that the epoch stands for.
    entry_id    bigint NOT NULL DEFAULT 0,
    -- How many entries there were up to it: one that commits late has a smaller number than some that were there before.
    entries     integer NOT NULL DEFAULT 0,
    -- When time alone changes the decision next: a period that begins or ends.
    next_at     timestamptz,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (org_id, profile_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id) ON DELETE CASCADE
);
SELECT directory.isolate('cura.consent_heads'::regclass);

-- A change of consent on its way: while a patient has one that isn't effective, nothing is sent for them.
CREATE TABLE cura.consent_halts (
    org_id       uuid NOT NULL,
    halt_id      uuid NOT NULL DEFAULT gen_random_uuid(),
    profile_id   uuid NOT NULL,
    cause        text NOT NULL CHECK (cause IN ('pulled', 'operator', 'expiry', 'merge')),
    actor        text NOT NULL DEFAULT '',
    opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The database's clock after the commit that moved the epoch.
    effective_at timestamptz,
    epoch        bigint,
    PRIMARY KEY (org_id, halt_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id) ON DELETE CASCADE,
    CHECK ((effective_at IS NULL) = (epoch IS NULL))
);
CREATE INDEX consent_halts_open ON cura.consent_halts (org_id, profile_id) WHERE effective_at IS NULL;
CREATE INDEX consent_halts_by_profile ON cura.consent_halts (org_id, profile_id, opened_at);
SELECT directory.isolate('cura.consent_halts'::regclass);

-- What an org has decided for itself. An org without a row has the defaults.
CREATE TABLE cura.org_policies (
    org_id           uuid PRIMARY KEY REFERENCES directory.orgs (org_id),
    -- The org is a programme under 42 CFR Part 2: what has no label inherits it.
    part2            boolean NOT NULL DEFAULT false,
    -- The hospital is told of a change of consent.
    announce_consent boolean NOT NULL DEFAULT true,
    -- Which roles may author which kind of artefact: {"note": ["clinician"], …}; a kind that isn't there has the default.
    authors          json NOT NULL DEFAULT '{}',
    updated_at       timestamptz NOT NULL DEFAULT now()
);
SELECT directory.isolate('cura.org_policies'::regclass);

-- The kill switch: an org's pushes or pulls, or one connection's, stop until somebody lifts it.
CREATE TABLE sync.halts (
    org_id        uuid NOT NULL REFERENCES directory.orgs (org_id),
    halt_id       uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Null: all of the org's.
    connection_id uuid,
    what          text NOT NULL CHECK (what IN ('pushes', 'pulls')),
    since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor         text NOT NULL,
    reason        text NOT NULL DEFAULT '',
    lifted_at     timestamptz,
    lifted_by     text NOT NULL DEFAULT '',
    PRIMARY KEY (org_id, halt_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);
CREATE UNIQUE INDEX halts_standing ON sync.halts (org_id, what, connection_id) NULLS NOT DISTINCT WHERE lifted_at IS NULL;
SELECT directory.isolate('sync.halts'::regclass);

ALTER TABLE sync.connections
    -- How each kind of artefact is delivered: {"note": "fhir", …}; a kind that isn't there is off.
    ADD COLUMN deliveries json NOT NULL DEFAULT '{}',
    ADD COLUMN pull_consent text NOT NULL DEFAULT 'none' CHECK (pull_consent IN ('none', 'opt-out', 'opt-in'));

GRANT SELECT ON sync.halts TO cura_reader;
GRANT SELECT (deliveries, pull_consent) ON sync.connections TO cura_reader;

-- +goose Down
ALTER TABLE sync.connections DROP COLUMN pull_consent, DROP COLUMN deliveries;
DROP TABLE sync.halts, cura.org_policies, cura.consent_halts, cura.consent_heads;
DELETE FROM cura.consent_log WHERE source = 'cura';
ALTER TABLE cura.consent_log DROP CONSTRAINT entry_has_a_source, DROP COLUMN actor_role, DROP COLUMN actor, DROP COLUMN consent_id,
    DROP COLUMN source, ALTER COLUMN mapping_version SET NOT NULL, ALTER COLUMN landing_id SET NOT NULL,
    ALTER COLUMN ehr_id SET NOT NULL, ALTER COLUMN connection_id SET NOT NULL;
DROP TABLE directory.wakeups;
