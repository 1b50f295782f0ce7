-- +goose Up
-- One head an org: the number of its last record. Touching it is the last statement of a transaction, so the records
-- of an org are in one order without holes.
CREATE TABLE audit.heads (
    org_id uuid PRIMARY KEY REFERENCES directory.orgs (org_id),
    seq    bigint NOT NULL
);

CREATE TABLE audit.records (
    org_id        uuid NOT NULL REFERENCES audit.heads (org_id),
    seq           bigint NOT NULL,
    at            timestamptz NOT NULL DEFAULT now(),
    kind          text NOT NULL,
    actor         text NOT NULL,
    connection_id uuid,
    run_id        uuid,
    outcome       text NOT NULL CHECK (outcome IN ('success', 'failure', 'denied')),
    details       json NOT NULL,
    PRIMARY KEY (org_id, seq)
);
CREATE INDEX records_by_connection ON audit.records (org_id, connection_id, kind, at);

-- +goose StatementBegin
CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.records
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON audit.heads
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

-- +goose Down
DROP TABLE audit.records, audit.heads;
DROP FUNCTION audit.refuse_change;
