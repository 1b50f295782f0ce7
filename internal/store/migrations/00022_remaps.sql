-- +goose Up
-- Runs that map again what has landed.
ALTER TABLE sync.runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('backfill', 'incremental', 'pilot', 'replay', 'range', 'patient', 'reconcile', 'remap'));

-- How far such a run has come in a type, and what became of the resources (internal/store.Retaken).
CREATE TABLE sync.remaps (
    org_id          uuid NOT NULL,
    run_id          uuid NOT NULL,
    resource_type   text NOT NULL,
    connection_id   uuid NOT NULL,
    dry_run         boolean NOT NULL,
    mapping_version text NOT NULL,
    -- The EHR id up to which it has come: PHI, and empty again at the end.
    after_ehr_id    text NOT NULL DEFAULT '',
    same            bigint NOT NULL DEFAULT 0,
    changed         bigint NOT NULL DEFAULT 0,
    rejected        bigint NOT NULL DEFAULT 0,
    accepted        bigint NOT NULL DEFAULT 0,
    in_review       bigint NOT NULL DEFAULT 0,
    excluded        bigint NOT NULL DEFAULT 0,
    withheld        bigint NOT NULL DEFAULT 0,
    skipped         bigint NOT NULL DEFAULT 0,
    -- How many records differ in an element: {"Observation.code.codings": 120}. Names of elements, never values.
    elements        json NOT NULL DEFAULT '{}',
    -- How many can't be mapped for a reason: {"Observation.status: required but missing": 3}.
    reasons         json NOT NULL DEFAULT '{}',
    done            boolean NOT NULL DEFAULT false,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, run_id, resource_type),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id)
);
SELECT directory.isolate('sync.remaps'::regclass);
GRANT SELECT (org_id, run_id, resource_type, connection_id, dry_run, mapping_version, same, changed, rejected, accepted, in_review, excluded,
    withheld, skipped, elements, reasons, done, updated_at) ON sync.remaps TO cura_reader;

-- A few of the resources that a dry run has found to come out otherwise, for people to look at; the next remap of the connection
-- drops them.
CREATE TABLE sync.remap_samples (
    org_id        uuid NOT NULL,
    run_id        uuid NOT NULL,
    resource_type text NOT NULL,
    ehr_id        text NOT NULL,
    connection_id uuid NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('changed', 'rejected', 'accepted', 'in_review')),
    -- Why it was, or would be, in quarantine; as in sync.quarantine.
    reasons       json NOT NULL,
    PRIMARY KEY (org_id, run_id, resource_type, ehr_id),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id)
);
SELECT directory.isolate('sync.remap_samples'::regclass);
CREATE INDEX remap_samples_by_connection ON sync.remap_samples (org_id, connection_id);

-- +goose Down
DROP TABLE sync.remap_samples, sync.remaps;
DELETE FROM sync.runs WHERE kind = 'remap';
ALTER TABLE sync.runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('backfill', 'incremental', 'pilot', 'replay', 'range', 'patient', 'reconcile'));
