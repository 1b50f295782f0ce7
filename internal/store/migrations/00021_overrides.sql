-- +goose Up
-- Sites' own rules on top of the mapping (mappings.ParseOverrides): each file that was ever set, append-only, since rows in Cura
-- say by which of them they were mapped. It names codes, units and systems of a hospital, and no patient.
CREATE TABLE sync.mapping_overrides (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    -- The file's own number; it grows with each file that is set.
    version       integer NOT NULL CHECK (version > 0),
    text          text NOT NULL CHECK (text <> ''),
    sha256        bytea NOT NULL CHECK (length(sha256) = 32),
    set_by        text NOT NULL CHECK (set_by <> ''),
    set_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (org_id, connection_id, version),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);
SELECT directory.isolate('sync.mapping_overrides'::regclass);
REVOKE UPDATE, DELETE ON sync.mapping_overrides FROM cura_app;
GRANT SELECT ON sync.mapping_overrides TO cura_reader;

-- The file that holds now; null: none does. The table of connections is small: the key is checked in no time.
ALTER TABLE sync.connections
    ADD COLUMN overrides_version integer,
    ADD CONSTRAINT overrides_were_set FOREIGN KEY (org_id, connection_id, overrides_version)
        REFERENCES sync.mapping_overrides (org_id, connection_id, version);
GRANT SELECT (overrides_version) ON sync.connections TO cura_reader;

-- +goose Down
ALTER TABLE sync.connections DROP COLUMN overrides_version;
DROP TABLE sync.mapping_overrides;
