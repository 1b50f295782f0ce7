-- +goose Up
CREATE TABLE sync.connections (
    org_id            uuid NOT NULL REFERENCES directory.orgs (org_id),
    connection_id     uuid NOT NULL,
    name              text NOT NULL,
    base_url          text NOT NULL,
    token_url         text NOT NULL DEFAULT '',
    client_id         text NOT NULL,
    scopes            text[] NOT NULL,
    ca_pem            text NOT NULL DEFAULT '',
    match_by          text NOT NULL CHECK (match_by IN ('mrn', 'national-id', 'cura-id')),
    match_system      text NOT NULL CHECK (match_system <> ''),
    ehr_profile       text NOT NULL,
    types             text[] NOT NULL CHECK (cardinality(types) > 0),
    insecure_loopback boolean NOT NULL DEFAULT false,
    -- Grows with every change of settings or credentials, so that who opened them before opens them again.
    settings_version  bigint NOT NULL DEFAULT 1,
    -- A shadow connection lives in the sandbox org and has no credentials: the pilot's rows hang on it.
    shadow_of         uuid,
    phase             text NOT NULL DEFAULT 'new'
        CHECK (phase IN ('new', 'testing', 'pilot', 'approval', 'backfill', 'monitoring', 'live', 'aborted')),
    health            text NOT NULL DEFAULT 'ok' CHECK (health IN ('ok', 'attention')),
    waits_for         text NOT NULL DEFAULT 'nobody',
    why               text NOT NULL DEFAULT '',
    commands          text[] NOT NULL DEFAULT '{}',
    attention_since   timestamptz,
    -- How often the schedule syncs; null: there is no schedule. A live connection that falls behind it needs a person.
    sync_interval     interval,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    removed_at        timestamptz,
    PRIMARY KEY (org_id, connection_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES directory.connections (org_id, connection_id),
    CONSTRAINT attention_says_why CHECK ((health = 'attention') = (attention_since IS NOT NULL) AND (health = 'ok' OR why <> ''))
);

CREATE TABLE sync.credentials (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('client-secret')),
    -- Sealed with the key file's AEAD; bound to org, connection and kind (internal/secrets).
    sealed        bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, connection_id, kind),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);

-- A resource type that the EHR forbids (403) is off until a probe finds it allowed again.
CREATE TABLE sync.type_switches (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    resource_type text NOT NULL,
    off_since     timestamptz NOT NULL DEFAULT now(),
    reason        text NOT NULL,
    last_probe_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, connection_id, resource_type),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);

CREATE TABLE sync.endpoint_tests (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    tested_at     timestamptz NOT NULL DEFAULT now(),
    verdict       text NOT NULL CHECK (verdict IN ('ok', 'warning', 'failed')),
    report        json NOT NULL,
    PRIMARY KEY (org_id, connection_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);

-- +goose Down
DROP TABLE sync.endpoint_tests, sync.type_switches, sync.credentials, sync.connections;
