-- +goose Up
-- The raw resource as received, one row a version, compressed a row each so that one patient can be erased.
CREATE TABLE sync.landing (
    org_id        uuid NOT NULL,
    landing_id    bigint GENERATED ALWAYS AS IDENTITY,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    ehr_id        text NOT NULL,
    content_hash  bytea NOT NULL CHECK (length(content_hash) = 32),
    version_id    text NOT NULL DEFAULT '',
    last_updated  timestamptz,
    -- zstd; null for a resource larger than the cap, which is counted and not kept.
    raw           bytea,
    raw_bytes     bigint NOT NULL,
    run_id        uuid NOT NULL,
    fetched_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, landing_id),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id)
);
CREATE INDEX landing_by_resource ON sync.landing (org_id, connection_id, resource_type, ehr_id);

-- The newest version of each resource and what became of it.
CREATE TABLE sync.resources (
    org_id         uuid NOT NULL,
    connection_id  uuid NOT NULL,
    resource_type  text NOT NULL,
    ehr_id         text NOT NULL,
    content_hash   bytea NOT NULL,
    last_updated   timestamptz,
    landing_id     bigint NOT NULL,
    outcome        text NOT NULL CHECK (outcome IN ('stored', 'quarantined', 'in_review', 'withheld')),
    -- Set while the outcome depends on a patient that isn't linked yet.
    waits_for_patient text,
    PRIMARY KEY (org_id, connection_id, resource_type, ehr_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);
CREATE INDEX resources_waiting ON sync.resources (org_id, connection_id, waits_for_patient)
    WHERE waits_for_patient IS NOT NULL;

CREATE TABLE sync.quarantine (
    org_id        uuid NOT NULL,
    quarantine_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    ehr_id        text NOT NULL,
    landing_id    bigint NOT NULL,
    -- [{"path": "Observation.status", "text": "is required"}]: element paths, never values.
    reasons       json NOT NULL,
    opened_at     timestamptz NOT NULL DEFAULT now(),
    closed_at     timestamptz,
    PRIMARY KEY (org_id, quarantine_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);
CREATE UNIQUE INDEX one_open_quarantine ON sync.quarantine (org_id, connection_id, resource_type, ehr_id)
    WHERE closed_at IS NULL;

CREATE TABLE sync.reviews (
    org_id        uuid NOT NULL,
    review_id     uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    ehr_id        text NOT NULL,
    landing_id    bigint NOT NULL,
    reason        text NOT NULL,
    candidates    uuid[] NOT NULL DEFAULT '{}',
    opened_at     timestamptz NOT NULL DEFAULT now(),
    closed_at     timestamptz,
    PRIMARY KEY (org_id, review_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);
CREATE UNIQUE INDEX one_open_review ON sync.reviews (org_id, connection_id, resource_type, ehr_id)
    WHERE closed_at IS NULL;

-- +goose Down
DROP TABLE sync.reviews, sync.quarantine, sync.resources, sync.landing;
