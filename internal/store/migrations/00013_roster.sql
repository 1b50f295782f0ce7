-- +goose Up
-- Whom a connection reads where its EHR can't be searched system-wide. A member that is removed is read no more; the row
-- stays, and what was read of them stays.
CREATE TABLE sync.roster (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    -- The patient's name outside the database, and the partition of what is read of them. It is that of the patient link
    -- where there was one before the member.
    member_id     uuid NOT NULL,
    ehr_id        text NOT NULL,
    source        text NOT NULL CHECK (source IN ('enrolment', 'list', 'group')),
    added_at      timestamptz NOT NULL DEFAULT now(),
    removed_at    timestamptz,
    PRIMARY KEY (org_id, connection_id, member_id),
    UNIQUE (org_id, connection_id, ehr_id),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);
SELECT directory.isolate('sync.roster'::regclass);
GRANT SELECT (org_id, connection_id, member_id, source, added_at, removed_at) ON sync.roster TO cura_reader;

-- People whom Cura asks the EHR for, by the connection's match identifier: those that the EHR has become members.
CREATE TABLE sync.enrolments (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    enrolment_id  uuid NOT NULL,
    -- The value of the identifier; its system is the connection's match_system.
    value         text NOT NULL CHECK (value <> ''),
    family        text NOT NULL DEFAULT '',
    given         text NOT NULL DEFAULT '',
    birth_date    text NOT NULL DEFAULT '',
    gender        text NOT NULL DEFAULT '',
    -- The Cura profile that it came from; null: it came from a file, whose line is kept for the person who mends it.
    profile_id    uuid,
    line          integer NOT NULL DEFAULT 0,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'found', 'not-found', 'ambiguous')),
    member_id     uuid,
    -- Why it is in its state: words, never what the EHR said.
    reason        text NOT NULL DEFAULT '',
    asked_at      timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, connection_id, enrolment_id),
    UNIQUE (org_id, connection_id, value),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id),
    FOREIGN KEY (org_id, connection_id, member_id) REFERENCES sync.roster (org_id, connection_id, member_id),
    CONSTRAINT found_has_a_member CHECK ((state = 'found') = (member_id IS NOT NULL)),
    CONSTRAINT can_be_verified CHECK (family <> '' OR birth_date <> '')
);
CREATE INDEX enrolments_to_ask ON sync.enrolments (org_id, connection_id, asked_at) WHERE state IN ('pending', 'not-found');
SELECT directory.isolate('sync.enrolments'::regclass);
GRANT SELECT (org_id, connection_id, enrolment_id, line, state, member_id, reason, asked_at, created_at) ON sync.enrolments TO cura_reader;

ALTER TABLE sync.connections
    -- What feeds the roster by itself: Cura's own records, nothing but what is uploaded, or a Group of the EHR.
    ADD COLUMN roster_source  text NOT NULL DEFAULT 'enrolment' CHECK (roster_source IN ('enrolment', 'list', 'group')),
    ADD COLUMN group_id       text NOT NULL DEFAULT '',
    -- An EHR profile that was given in a file, whole; empty: ehr_profile names one that is built in.
    ADD COLUMN profile_text   text NOT NULL DEFAULT '',
    -- What the profile's placeholders stand for, such as {"practice": "Organization/a-1.Practice-1"}.
    ADD COLUMN profile_params json NOT NULL DEFAULT '{}',
    -- Strategies that an operator has chosen, such as {Observation=snapshot}.
    ADD COLUMN strategies     text[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT group_source_has_a_group CHECK (roster_source <> 'group' OR group_id <> '');
GRANT SELECT (roster_source, strategies) ON sync.connections TO cura_reader;

-- +goose Down
ALTER TABLE sync.connections DROP COLUMN roster_source, DROP COLUMN group_id, DROP COLUMN profile_text,
    DROP COLUMN profile_params, DROP COLUMN strategies;
DROP TABLE sync.enrolments, sync.roster;
