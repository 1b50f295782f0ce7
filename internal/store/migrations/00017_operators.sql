-- +goose Up
-- Who may tell an org's machinery what: one role a person. Until sign-in exists a person is who they say they are.
CREATE TABLE cura.operators (
    org_id     uuid NOT NULL REFERENCES directory.orgs (org_id),
    -- As it is given with --as: no patient's.
    name       text NOT NULL CHECK (name <> '' AND length(name) <= 100),
    role       text NOT NULL CHECK (role IN ('viewer', 'ops', 'consent_officer', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, name)
);
SELECT directory.isolate('cura.operators'::regclass);

-- Pushes that wait for a person: few among many.
CREATE INDEX outbox_waiting ON push.outbox (org_id, connection_id) WHERE state IN ('review', 'manual');

-- +goose Down
DROP INDEX push.outbox_waiting;
DROP TABLE cura.operators;
