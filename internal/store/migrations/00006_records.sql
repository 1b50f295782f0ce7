-- +goose Up
-- The clinical records. Each has the same head, then what people look it up by; record is the whole, as mapped.
CREATE TABLE cura.allergies (
    org_id           uuid NOT NULL,
    connection_id    uuid NOT NULL,
    resource_type    text NOT NULL CHECK (resource_type = 'AllergyIntolerance'),
    ehr_id           text NOT NULL,
    profile_id       uuid NOT NULL,
    entered_in_error boolean NOT NULL,
    last_updated     timestamptz,
    landing_id       bigint NOT NULL,
    mapping_version  text NOT NULL,
    status           text NOT NULL,
    code_system      text NOT NULL,
    code             text NOT NULL,
    label            text NOT NULL,
    starts_at        timestamptz,
    ends_at          timestamptz,
    record           json NOT NULL,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, connection_id, resource_type, ehr_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);
CREATE INDEX allergies_by_profile ON cura.allergies (org_id, profile_id);

CREATE TABLE cura.medications (
    LIKE cura.allergies INCLUDING DEFAULTS,
    CHECK (resource_type IN ('MedicationRequest', 'MedicationStatement')),
    PRIMARY KEY (org_id, connection_id, resource_type, ehr_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);
CREATE INDEX medications_by_profile ON cura.medications (org_id, profile_id);

CREATE TABLE labs.observations (
    LIKE cura.allergies INCLUDING DEFAULTS,
    -- The value with its digits and its comparator as they came, or the words of a coded or text value.
    value            text NOT NULL DEFAULT '',
    unit             text NOT NULL DEFAULT '',
    analyte          text NOT NULL DEFAULT '',
    CHECK (resource_type = 'Observation'),
    PRIMARY KEY (org_id, connection_id, resource_type, ehr_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);
CREATE INDEX observations_by_profile ON labs.observations (org_id, profile_id, starts_at);

CREATE TABLE cura.visits (
    LIKE cura.allergies INCLUDING DEFAULTS,
    CHECK (resource_type = 'Encounter'),
    PRIMARY KEY (org_id, connection_id, resource_type, ehr_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);
CREATE INDEX visits_by_profile ON cura.visits (org_id, profile_id);

-- Append-only: every version of every Consent that was pulled is one entry.
CREATE TABLE cura.consent_log (
    org_id           uuid NOT NULL,
    entry_id         bigint GENERATED ALWAYS AS IDENTITY,
    connection_id    uuid NOT NULL,
    ehr_id           text NOT NULL,
    profile_id       uuid NOT NULL,
    entered_in_error boolean NOT NULL,
    last_updated     timestamptz,
    landing_id       bigint NOT NULL,
    mapping_version  text NOT NULL,
    status           text NOT NULL,
    root_type        text NOT NULL DEFAULT '',
    starts_at        timestamptz,
    ends_at          timestamptz,
    record           json NOT NULL,
    logged_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, entry_id),
    UNIQUE (org_id, landing_id),
    FOREIGN KEY (org_id, profile_id) REFERENCES cura.profiles (org_id, profile_id),
    FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id)
);
CREATE INDEX consent_log_by_profile ON cura.consent_log (org_id, profile_id);

-- +goose Down
DROP TABLE cura.consent_log, cura.visits, labs.observations, cura.medications, cura.allergies;
