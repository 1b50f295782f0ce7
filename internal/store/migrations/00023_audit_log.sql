-- +goose Up
-- What makes the audit log prove itself (internal/audit/seal): the hashes of each org's Merkle tree, and its signed heads. Both are
-- written behind the records, by the sealer; the heads leave the database before they count. Two small rows a record: the tables
-- are made empty, so nothing is rewritten.

-- index is tlog.StoredHashIndex: leaves and inner nodes in the order in which a growing tree completes them.
CREATE TABLE audit.hashes (
    org_id uuid NOT NULL,
    index  bigint NOT NULL CHECK (index >= 0),
    hash   bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (org_id, index)
);
SELECT directory.isolate('audit.hashes'::regclass);

CREATE TABLE audit.signed_heads (
    org_id    uuid NOT NULL REFERENCES audit.heads (org_id),
    -- How many records it covers: records 1 to size.
    size      bigint NOT NULL CHECK (size > 0),
    root      bytea NOT NULL CHECK (octet_length(root) = 32),
    signed_at timestamptz NOT NULL,
    -- The note that was signed, with its signature; the same text is in the file of heads.
    note      text NOT NULL,
    PRIMARY KEY (org_id, size)
);
SELECT directory.isolate('audit.signed_heads'::regclass);

REVOKE UPDATE, DELETE ON audit.hashes, audit.signed_heads FROM cura_app;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.hashes
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.signed_heads
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
GRANT SELECT ON audit.hashes, audit.signed_heads TO cura_reader;

-- A change of consent is sealed at once: its record commits with the epoch that moves.
-- +goose StatementBegin
CREATE FUNCTION audit.wake_sealer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('cura_audit', NEW.org_id::text);
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER wake_sealer AFTER UPDATE OF epoch ON cura.consent_heads
    FOR EACH ROW WHEN (NEW.epoch <> OLD.epoch) EXECUTE FUNCTION audit.wake_sealer();

-- +goose Down
DROP TRIGGER wake_sealer ON cura.consent_heads;
DROP TABLE audit.signed_heads, audit.hashes;
DROP FUNCTION audit.wake_sealer;
