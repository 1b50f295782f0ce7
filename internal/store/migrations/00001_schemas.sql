-- +goose Up
-- What is where: directory is read across orgs and holds no PHI; cura and labs are Cura's records; sync is the
-- machinery of pulls; audit is the log. Every table but the directory's is one org's at a time (00009_isolation.sql).
CREATE SCHEMA directory;
CREATE SCHEMA cura;
CREATE SCHEMA labs;
CREATE SCHEMA sync;
CREATE SCHEMA audit;

CREATE TABLE directory.orgs (
    org_id      uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    kind        text NOT NULL CHECK (kind IN ('live', 'sandbox')),
    -- The live org that a sandbox org rehearses for.
    live_org_id uuid UNIQUE REFERENCES directory.orgs (org_id),
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sandbox_has_a_live_org CHECK ((kind = 'sandbox') = (live_org_id IS NOT NULL))
);

CREATE TABLE directory.connections (
    org_id        uuid NOT NULL REFERENCES directory.orgs (org_id),
    connection_id uuid NOT NULL,
    name          text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    -- attention is set while anything of the connection waits for a person.
    attention     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (org_id, connection_id),
    UNIQUE (connection_id),
    UNIQUE (org_id, name)
);

-- +goose Down
DROP SCHEMA audit, sync, labs, cura, directory CASCADE;
