-- +goose Up
-- A foreign key is looked up once a row, and these were most of what a row cost. What they guarded, the transaction that
-- writes the row guarantees by itself:
--   landing -> runs       the page's counts are in sync.run_counts, whose foreign key to sync.runs stays;
--   ... -> landing        the landing row is written a statement earlier by the same transaction, which takes its id from there.
--                         Landed rows are deleted by the purge of a pilot alone, after everything that names them.
-- The key from each record to its profile stays: whose a record is, the database itself must vouch for.
-- Dropping a constraint takes a moment's lock, however large the table is.
ALTER TABLE sync.landing DROP CONSTRAINT landing_org_id_run_id_fkey;
ALTER TABLE sync.resources DROP CONSTRAINT resources_org_id_landing_id_fkey;
ALTER TABLE cura.allergies DROP CONSTRAINT allergies_org_id_landing_id_fkey;
ALTER TABLE cura.medications DROP CONSTRAINT medications_org_id_landing_id_fkey;
ALTER TABLE labs.observations DROP CONSTRAINT observations_org_id_landing_id_fkey;
ALTER TABLE cura.visits DROP CONSTRAINT visits_org_id_landing_id_fkey;

-- Nobody reads it: what has landed is found by sync.resources.landing_id.
DROP INDEX sync.landing_by_resource;

-- With the type in it, what waits is found without reading the whole type, whatever the statistics say. On a large table, make
-- it beforehand with CREATE INDEX CONCURRENTLY.
CREATE INDEX IF NOT EXISTS resources_waiting_by_type ON sync.resources (org_id, connection_id, resource_type, waits_for_patient)
    WHERE waits_for_patient IS NOT NULL;
DROP INDEX sync.resources_waiting;

-- +goose Down
CREATE INDEX resources_waiting ON sync.resources (org_id, connection_id, waits_for_patient) WHERE waits_for_patient IS NOT NULL;
DROP INDEX sync.resources_waiting_by_type;
CREATE INDEX landing_by_resource ON sync.landing (org_id, connection_id, resource_type, ehr_id);
ALTER TABLE cura.visits ADD FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id);
ALTER TABLE labs.observations ADD FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id);
ALTER TABLE cura.medications ADD FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id);
ALTER TABLE cura.allergies ADD FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id);
ALTER TABLE sync.resources ADD FOREIGN KEY (org_id, landing_id) REFERENCES sync.landing (org_id, landing_id);
ALTER TABLE sync.landing ADD FOREIGN KEY (org_id, run_id) REFERENCES sync.runs (org_id, run_id);
