-- +goose Up
-- The patients of a pilot and what became of each, in the sandbox org. Purged at live or abort.
CREATE TABLE sync.pilot_patients (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    run_id        uuid NOT NULL,
    position      integer NOT NULL,
    ehr_id        text NOT NULL,
    done          boolean NOT NULL DEFAULT false,
    -- internal/cura.PilotPatient; it holds PHI, for authorized eyes.
    report        json,
    PRIMARY KEY (org_id, connection_id, position),
    FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id)
);

-- Patients that ops asked to pilot (--patients FILE): EHR ids, kept here so that they don't travel through Temporal.
CREATE TABLE sync.pilot_choices (
    org_id        uuid NOT NULL,
    connection_id uuid NOT NULL,
    position      integer NOT NULL,
    ehr_id        text NOT NULL,
    PRIMARY KEY (org_id, connection_id, position),
    FOREIGN KEY (org_id, connection_id) REFERENCES sync.connections (org_id, connection_id)
);

-- +goose Down
DROP TABLE sync.pilot_choices, sync.pilot_patients;
