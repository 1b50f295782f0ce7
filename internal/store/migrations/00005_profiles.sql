-- +goose Up
CREATE TABLE cura.profiles (
    org_id               uuid NOT NULL,
    profile_id           uuid NOT NULL,
    name                 text NOT NULL DEFAULT '',
    family               text NOT NULL DEFAULT '',
    given                text NOT NULL DEFAULT '',
    birth_date           text NOT NULL DEFAULT '',
    birth_date_precision text NOT NULL DEFAULT '' CHECK (birth_date_precision IN ('', 'year', 'month', 'day')),
    gender               text NOT NULL DEFAULT '',
    deceased             boolean,
    active               boolean,
    -- The record whole, as mapped (internal/cura.Profile); json, not jsonb: its decimals keep their digits.
    record               json NOT NULL,
    connection_id        uuid NOT NULL,
    ehr_id               text NOT NULL,
    last_updated         timestamptz,
    landing_id           bigint NOT NULL,
    mapping_version      text NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, profile_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);

-- What a profile can be found by: system and value, never a value alone.
CREATE TABLE cura.profile_identifiers (
    org_id        uuid NOT NULL,
    profile_id    uuid NOT NULL,
    connection_id uuid NOT NULL,
    system        text NOT NULL,
    value         text NOT NULL,
    type_code     text NOT NULL DEFAULT '',
    PRIMARY KEY (org_id, profile_id, connection_id, system, value),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id)
);
CREATE INDEX profile_identifiers_by_value ON cura.profile_identifiers (org_id, system, value);

-- A patient of a connection tied to a profile. One patient has one link; a patient in review has none yet.
CREATE TABLE sync.patient_links (
    org_id        uuid NOT NULL,
    link_id       uuid NOT NULL,
    connection_id uuid NOT NULL,
    ehr_id        text NOT NULL,
    profile_id    uuid NOT NULL,
    matched_by    text NOT NULL CHECK (matched_by IN ('new', 'mrn', 'national-id', 'cura-id')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, link_id),
    UNIQUE (org_id, connection_id, ehr_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id)
);
CREATE INDEX patient_links_by_profile ON sync.patient_links (org_id, profile_id);

-- +goose Down
DROP TABLE sync.patient_links, cura.profile_identifiers, cura.profiles;
