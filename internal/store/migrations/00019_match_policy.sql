-- +goose Up
-- What becomes of a patient for whom no profile is found, or who has no national or Cura id to find one by: a new profile, or a
-- person decides. The table is small: the column costs nothing.
ALTER TABLE sync.connections
    ADD COLUMN unmatched text NOT NULL DEFAULT 'new' CHECK (unmatched IN ('new', 'review'));
GRANT SELECT (unmatched) ON sync.connections TO cura_reader;

-- +goose Down
ALTER TABLE sync.connections DROP COLUMN unmatched;
