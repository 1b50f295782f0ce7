-- +goose Up
-- How fast a connection may be asked, what its answers have taught, and who stopped it. All workers share these rows.
-- All are new tables: nothing is locked, and it runs at once on a database of any size.

-- The clock that paces are kept by: the database's, so that workers' own clocks don't matter. It goes on within a
-- transaction. It is a function so that a test can put another in its place.
CREATE FUNCTION sync.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp()';

CREATE TABLE sync.pace (
    org_id              uuid NOT NULL,
    connection_id       uuid NOT NULL,
    -- The budget of this connection; 0: its EHR profile's.
    requests_per_minute integer NOT NULL DEFAULT 0 CHECK (requests_per_minute >= 0),
    -- The token bucket: how full it was at refilled_at.
    tokens              double precision NOT NULL DEFAULT 0,
    refilled_at         timestamptz NOT NULL DEFAULT 'epoch',
    -- Until then the EHR wants no request, of any worker.
    held_until          timestamptz,
    -- What throttling has taught; 0: nothing, the profile's own apply.
    page_size           integer NOT NULL DEFAULT 0 CHECK (page_size >= 0),
    concurrency         integer NOT NULL DEFAULT 0 CHECK (concurrency >= 0),
    -- Good answers since the last throttle or the last step of recovery.
    successes           integer NOT NULL DEFAULT 0,
    failures_in_a_row   integer NOT NULL DEFAULT 0,
    failing_since       timestamptz,
    -- After how many failures in a row people are told.
    alert_after         integer NOT NULL DEFAULT 5 CHECK (alert_after > 0),
    -- Set while people have been told and not yet that it is over: it makes one alert of an episode, whoever saw it.
    alerted_at          timestamptz,
    -- While the EHR is down: when the next request may be tried.
    probe_at            timestamptz,
    absurd_retry_after  integer NOT NULL DEFAULT 0,
    throttles           bigint NOT NULL DEFAULT 0,
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, connection_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id),
    CONSTRAINT failing_or_not CHECK ((failures_in_a_row = 0) = (failing_since IS NULL))
) WITH (fillfactor = 50); -- a row that is updated with each request stays on its page
SELECT directory.isolate('sync.pace'::regclass);

-- Who stopped a connection, or one type of it ('' is all of it), and why. A row stands until somebody resumes.
CREATE TABLE sync.pauses (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    paused_by     text NOT NULL,
    reason        text NOT NULL DEFAULT '',
    PRIMARY KEY (org_id, connection_id, resource_type),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);
SELECT directory.isolate('sync.pauses'::regclass);

GRANT SELECT ON sync.pace, sync.pauses TO cura_reader;

-- +goose Down
DROP TABLE sync.pauses, sync.pace;
DROP FUNCTION sync.clock;
