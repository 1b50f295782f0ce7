-- +goose Up
-- How each type is read, who chose it, and why (internal/cura.StrategyChoice).
CREATE TABLE sync.strategies (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    strategy      text NOT NULL CHECK (strategy IN ('system', 'roster', 'snapshot')),
    chosen_by     text NOT NULL CHECK (chosen_by IN ('profile', 'metadata', 'probe', 'operator')),
    reason        text NOT NULL,
    can_miss      text NOT NULL DEFAULT '',
    -- Categories that the server has refused; they aren't asked for again until the next endpoint test.
    not_offered   text[] NOT NULL DEFAULT '{}',
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, connection_id, resource_type),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);
SELECT directory.isolate('sync.strategies'::regclass);
GRANT SELECT ON sync.strategies TO cura_reader;

ALTER TABLE sync.runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('backfill', 'incremental', 'pilot', 'replay', 'range', 'patient', 'reconcile'));

-- A pass may be read in windows of _lastUpdated, and in slices, a search each (a category); the cursor says in which it
-- stands. Of a pass over a roster it says after which member.
ALTER TABLE sync.cursors
    ADD COLUMN until        timestamptz,
    ADD COLUMN slice        integer NOT NULL DEFAULT 0,
    ADD COLUMN after_member text NOT NULL DEFAULT '',
    -- Rows of the window so far, and how many the server said there are; 0: unknown. Fewer rows than that were skipped.
    ADD COLUMN rows_seen    bigint NOT NULL DEFAULT 0,
    ADD COLUMN rows_total   bigint NOT NULL DEFAULT 0;

-- Who waits for the lease because a person waits for them: the holder lets go after its page, and nobody else takes it.
ALTER TABLE sync.leases
    ADD COLUMN wanted_by    text NOT NULL DEFAULT '',
    ADD COLUMN wanted_until timestamptz NOT NULL DEFAULT '-infinity';

-- partition names the roster member by whom the resource was read; '' where the whole system is searched. gone_at is the
-- tombstone: the EHR has the resource no more. absences counts the whole reads in a row that didn't bring it.
ALTER TABLE sync.resources
    ADD COLUMN partition   text NOT NULL DEFAULT '',
    ADD COLUMN gone_at     timestamptz,
    ADD COLUMN gone_reason text CHECK (gone_reason IN ('gone', 'absent', 'entered-in-error')),
    ADD COLUMN absences    integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT gone_says_why CHECK ((gone_at IS NULL) = (gone_reason IS NULL));
CREATE INDEX resources_by_partition ON sync.resources (org_id, connection_id, resource_type, partition) WHERE partition <> '';
CREATE INDEX resources_gone ON sync.resources (org_id, connection_id, resource_type, ehr_id) WHERE gone_at IS NOT NULL OR absences > 0;

-- The records keep their rows for the audit; who shows them looks at gone_at.
-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['cura.profiles', 'cura.allergies', 'cura.medications', 'labs.observations', 'cura.visits'] LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN gone_at timestamptz, ADD COLUMN gone_reason text', t);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- The ids that a reconciling run has met, until it has compared them.
CREATE TABLE sync.seen (
    org_id        uuid NOT NULL,
    run_id        uuid NOT NULL,
    resource_type text NOT NULL,
    ehr_id        text NOT NULL,
    PRIMARY KEY (org_id, run_id, resource_type, ehr_id),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id)
);
SELECT directory.isolate('sync.seen'::regclass);

-- What a reconciling run has found to differ, by id.
CREATE TABLE sync.differences (
    org_id        uuid NOT NULL,
    run_id        uuid NOT NULL,
    resource_type text NOT NULL,
    ehr_id        text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('missing', 'extra', 'changed')),
    found_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, run_id, resource_type, ehr_id),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id)
);
SELECT directory.isolate('sync.differences'::regclass);
GRANT SELECT (org_id, run_id, resource_type, kind, found_at) ON sync.differences TO cura_reader;

CREATE TABLE sync.reconciliations (
    org_id        uuid NOT NULL,
    run_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    -- What the server says by _summary=count; null where it doesn't count.
    counted       bigint,
    source        bigint NOT NULL,
    cura          bigint NOT NULL,
    missing       bigint NOT NULL,
    extra         bigint NOT NULL,
    changed       bigint NOT NULL,
    unreadable    bigint NOT NULL,
    repaired      bigint NOT NULL,
    compared_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, run_id, resource_type),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id)
);
SELECT directory.isolate('sync.reconciliations'::regclass);
GRANT SELECT ON sync.reconciliations TO cura_reader;

-- +goose Down
DROP TABLE sync.reconciliations, sync.differences, sync.seen, sync.strategies;
ALTER TABLE cura.profiles DROP COLUMN gone_at, DROP COLUMN gone_reason;
ALTER TABLE cura.allergies DROP COLUMN gone_at, DROP COLUMN gone_reason;
ALTER TABLE cura.medications DROP COLUMN gone_at, DROP COLUMN gone_reason;
ALTER TABLE labs.observations DROP COLUMN gone_at, DROP COLUMN gone_reason;
ALTER TABLE cura.visits DROP COLUMN gone_at, DROP COLUMN gone_reason;
ALTER TABLE sync.resources DROP COLUMN partition, DROP COLUMN gone_at, DROP COLUMN gone_reason, DROP COLUMN absences;
ALTER TABLE sync.leases DROP COLUMN wanted_by, DROP COLUMN wanted_until;
ALTER TABLE sync.cursors DROP COLUMN until, DROP COLUMN slice, DROP COLUMN after_member, DROP COLUMN rows_seen, DROP COLUMN rows_total;
ALTER TABLE sync.runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('backfill', 'incremental', 'pilot', 'replay'));
