-- +goose Up
-- What Cura wants in the EHRs, and what came of it.
CREATE SCHEMA push;
GRANT USAGE ON SCHEMA push TO cura_app, cura_reader;

-- The outbox: Cura's applications insert rows in their own transactions. content is a cura.Artefact, and PHI.
CREATE TABLE push.outbox (
    org_id           uuid NOT NULL,
    item_id          uuid NOT NULL DEFAULT gen_random_uuid(),
    position         bigint GENERATED ALWAYS AS IDENTITY,
    connection_id    uuid NOT NULL,
    link_id          uuid NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('note', 'diagnosis', 'procedure', 'consent-event')),
    artefact_id      text NOT NULL CHECK (artefact_id ~ '^[A-Za-z0-9.-]{1,64}$'),
    artefact_version integer NOT NULL CHECK (artefact_version > 0),
    author           text NOT NULL CHECK (author <> ''),
    author_role      text NOT NULL CHECK (author_role <> ''),
    labels           text[] NOT NULL DEFAULT '{}',
    content          json NOT NULL,
    -- What may go after a revocation: the event that tells of it, and the retraction of what went before.
    exempt           text NOT NULL DEFAULT '' CHECK (exempt IN ('', 'consent-event', 'retraction')),
    state            text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'sending', 'delivered', 'held', 'denied', 'cancelled', 'rejected', 'review', 'manual')),
    -- Why it hasn't left, in words for a person; no PHI.
    why              text NOT NULL DEFAULT '',
    -- It isn't tried before.
    due_at           timestamptz NOT NULL DEFAULT '-infinity',
    attempts         integer NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (org_id, item_id),
    UNIQUE (org_id, connection_id, artefact_id, artefact_version),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id),
    FOREIGN KEY (org_id, link_id) REFERENCES sync.patient_links (org_id, link_id)
);
CREATE INDEX outbox_queue ON push.outbox (org_id, link_id, position) WHERE state IN ('queued', 'sending');
CREATE INDEX outbox_held ON push.outbox (org_id, link_id) WHERE state = 'held';
CREATE INDEX outbox_by_state ON push.outbox (org_id, connection_id, state, position);
SELECT directory.isolate('push.outbox'::regclass);

-- +goose StatementBegin
CREATE FUNCTION push.wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO directory.wakeups (org_id, kind, ref, connection_id, due_at)
    VALUES (NEW.org_id, 'delivery', NEW.link_id, NEW.connection_id, pg_catalog.clock_timestamp())
    ON CONFLICT (org_id, kind, ref) DO UPDATE
        SET due_at = least(directory.wakeups.due_at, excluded.due_at), seq = directory.wakeups.seq + 1;
    PERFORM pg_catalog.pg_notify('cura_wakeups', 'delivery');
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER wake AFTER INSERT OR UPDATE OF state ON push.outbox
    FOR EACH ROW WHEN (NEW.state = 'queued') EXECUTE FUNCTION push.wake();

-- The ledger: one row for each version of an artefact at a connection, so that nothing is written twice. It keeps the
-- decision by which it was let through.
CREATE TABLE push.ledger (
    org_id           uuid NOT NULL,
    connection_id    uuid NOT NULL,
    artefact_id      text NOT NULL,
    artefact_version integer NOT NULL,
    item_id          uuid NOT NULL,
    profile_id       uuid NOT NULL,
    resource         text NOT NULL,
    state            text NOT NULL CHECK (state IN ('intent', 'sent', 'confirmed', 'rejected', 'already-present', 'unknown',
        'cancelled-by-consent')),
    content_hash     bytea NOT NULL,
    -- The proof: by which consent, at which epoch, in which role, when. No entry for what is exempt.
    consent_entry    bigint,
    consent_epoch    bigint NOT NULL,
    author_role      text NOT NULL,
    decided_at       timestamptz NOT NULL,
    -- While it is sent: until then bytes may leave. It outlives the sender.
    send_deadline    timestamptz,
    sends            integer NOT NULL DEFAULT 0,
    lookups          integer NOT NULL DEFAULT 0,
    first_sent_at    timestamptz,
    settled_at       timestamptz,
    -- The receipt.
    ehr_id           text NOT NULL DEFAULT '',
    version_id       text NOT NULL DEFAULT '',
    etag             text NOT NULL DEFAULT '',
    status           integer NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, connection_id, artefact_id, artefact_version),
    UNIQUE (org_id, item_id),
    FOREIGN KEY (org_id, item_id) REFERENCES push.outbox (org_id, item_id),
    CONSTRAINT sent_has_a_deadline CHECK (state <> 'sent' OR (send_deadline IS NOT NULL AND sends > 0)),
    CONSTRAINT settled_or_not CHECK ((settled_at IS NOT NULL) = (state IN ('confirmed', 'rejected', 'already-present', 'cancelled-by-consent'))),
    CONSTRAINT not_sent_without_consent CHECK (sends = 0 OR decided_at IS NOT NULL)
);
-- What a revoker waits for.
CREATE INDEX ledger_unsettled ON push.ledger (org_id, profile_id, send_deadline) WHERE state = 'sent';
-- Our own writes, when a pull brings them back.
CREATE INDEX ledger_by_ehr_id ON push.ledger (org_id, connection_id, resource, ehr_id) WHERE ehr_id <> '';
SELECT directory.isolate('push.ledger'::regclass);

-- +goose StatementBegin
CREATE FUNCTION push.legal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state = 'intent' THEN RETURN NEW; END IF;
    ELSIF NEW.state = OLD.state
        OR (OLD.state = 'intent' AND NEW.state IN ('sent', 'rejected', 'cancelled-by-consent'))
        OR (OLD.state = 'sent' AND NEW.state IN ('intent', 'confirmed', 'rejected', 'already-present', 'unknown'))
        OR (OLD.state = 'unknown' AND NEW.state IN ('intent', 'confirmed', 'rejected', 'already-present'))
        OR (OLD.state IN ('rejected', 'cancelled-by-consent') AND NEW.state = 'intent') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a delivery can''t go from % to %', CASE WHEN TG_OP = 'INSERT' THEN 'nothing' ELSE OLD.state END, NEW.state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_transition';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER legal_transition BEFORE INSERT OR UPDATE OF state ON push.ledger FOR EACH ROW EXECUTE FUNCTION push.legal();

-- Nobody deletes what was sent.
REVOKE DELETE ON push.outbox, push.ledger FROM cura_app;

GRANT SELECT (org_id, connection_id, artefact_id, artefact_version, item_id, resource, state, consent_entry,
    consent_epoch, author_role, decided_at, send_deadline, sends, lookups, first_sent_at, settled_at, status) ON push.ledger TO cura_reader;
GRANT SELECT (org_id, item_id, position, connection_id, kind, artefact_id, artefact_version, author_role, exempt, state, why,
    due_at, attempts, created_at, updated_at) ON push.outbox TO cura_reader;

-- +goose Down
DROP SCHEMA push CASCADE;
