-- +goose Up
-- A run is one backfill, scheduled sync, pilot or replay; its counts are per resource type and must balance.
CREATE TABLE sync.runs (
    org_id        uuid NOT NULL,
    run_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('backfill', 'incremental', 'pilot', 'replay')),
    workflow_id   text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    outcome       text NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'complete', 'incomplete')),
    PRIMARY KEY (org_id, run_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id),
    CONSTRAINT finished_or_running CHECK ((outcome = 'running') = (finished_at IS NULL))
);
CREATE INDEX runs_by_connection ON sync.runs (org_id, connection_id, started_at);

CREATE TABLE sync.run_counts (
    org_id        uuid NOT NULL,
    run_id        uuid NOT NULL,
    resource_type text NOT NULL,
    served        bigint NOT NULL,
    landed        bigint NOT NULL,
    stored        bigint NOT NULL,
    unchanged     bigint NOT NULL,
    quarantined   bigint NOT NULL,
    in_review     bigint NOT NULL,
    withheld      bigint NOT NULL,
    -- done is set by the page that ends the type's pass.
    done          boolean NOT NULL DEFAULT false,
    PRIMARY KEY (org_id, run_id, resource_type),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id),
    CONSTRAINT everything_served_has_an_outcome CHECK (served = stored + unchanged + quarantined + in_review + withheld)
);

-- Up to this instant of the server's clock the (connection, type, partition) has been read whole.
CREATE TABLE sync.watermarks (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    partition     text NOT NULL DEFAULT '',
    watermark     timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, connection_id, resource_type, partition),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);

-- Where a pass in flight stands. next_link may hold PHI and so never leaves the database; empty, the pass begins again.
CREATE TABLE sync.cursors (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    partition     text NOT NULL DEFAULT '',
    run_id        uuid NOT NULL,
    since         timestamptz,
    next_link     text NOT NULL,
    -- The watermark that the last page will set: the server's time on the first page.
    candidate     timestamptz,
    -- How often the pass began again because the server had forgotten its page links.
    restarts      integer NOT NULL DEFAULT 0,
    -- The _count asked for, where pages had to become smaller; 0: the usual one.
    page_size     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, connection_id, resource_type, partition, run_id),
    CONSTRAINT a_link_has_a_candidate CHECK (next_link = '' OR candidate IS NOT NULL),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id)
);

-- One reader per (connection, type): backfill, sync and replay keep out of each other's way. The fence grows with every
-- taking, so that a reader which lost its lease without noticing can't commit a page.
CREATE TABLE sync.leases (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    holder        text NOT NULL,
    fence         bigint NOT NULL,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (org_id, connection_id, resource_type),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);

-- Work that used up its retries. While one is open its watermark stands still.
CREATE TABLE sync.dead_letters (
    org_id         uuid NOT NULL,
    dead_letter_id uuid NOT NULL,
    connection_id  uuid NOT NULL,
    resource_type  text NOT NULL,
    partition      text NOT NULL DEFAULT '',
    run_id         uuid NOT NULL,
    fault          text NOT NULL,
    detail         text NOT NULL,
    attempts       integer NOT NULL,
    -- How often a run has ended here since the letter was opened.
    times          integer NOT NULL DEFAULT 1,
    since          timestamptz,
    opened_at      timestamptz NOT NULL DEFAULT now(),
    last_at        timestamptz NOT NULL DEFAULT now(),
    state          text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'recovered', 'replayed', 'discarded')),
    closed_at      timestamptz,
    closed_by      text NOT NULL DEFAULT '',
    PRIMARY KEY (org_id, dead_letter_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id),
    CONSTRAINT closed_or_open CHECK ((state = 'open') = (closed_at IS NULL))
);
CREATE UNIQUE INDEX one_open_dead_letter ON sync.dead_letters (org_id, connection_id, resource_type, partition)
    WHERE state = 'open';

-- +goose Down
DROP TABLE sync.dead_letters, sync.leases, sync.cursors, sync.watermarks, sync.run_counts, sync.runs;
