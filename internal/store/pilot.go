package store

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// PilotSlot is one patient of a pilot: who, and whether they have been read.
type PilotSlot struct {
	Position int
	EHRID    string
	Done     bool
	Report   *cura.PilotPatient
}

// PutPilotChoices keeps the patients that ops asked to pilot; none: the first ones that the EHR serves.
func (tx *Tx) PutPilotChoices(ctx context.Context, connection cura.ConnectionID, ids []string, actor string) error {
	var batch pgx.Batch
	batch.Queue(`DELETE FROM sync.pilot_choices WHERE org_id = $1 AND connection_id = $2`, tx.org, connection)
	batch.Queue(`
		INSERT INTO sync.pilot_choices (org_id, connection_id, position, ehr_id)
		SELECT $1, $2, ord, id FROM unnest($3::text[]) WITH ORDINALITY AS c (id, ord)`, tx.org, connection, ids)
	tx.Audit(audit.Record{
		Kind: audit.ChoicesStored, Actor: actor, Connection: connection, Outcome: audit.Success,
		Details: map[string]int{"patients": len(ids)},
	})
	return tx.tx.SendBatch(ctx, &batch).Close()
}

// PilotChoices reads what PutPilotChoices kept.
func (tx *Tx) PilotChoices(ctx context.Context, connection cura.ConnectionID) ([]string, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT ehr_id FROM sync.pilot_choices WHERE org_id = $1 AND connection_id = $2 ORDER BY position`, tx.org, connection)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// StartPilot keeps which patients the run pilots, so that a run that is resumed pilots the same ones.
func (tx *Tx) StartPilot(ctx context.Context, connection cura.ConnectionID, run string, ids []string) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.pilot_patients (org_id, connection_id, run_id, position, ehr_id)
		SELECT $1, $2, $3, ord, id FROM unnest($4::text[]) WITH ORDINALITY AS c (id, ord)`, tx.org, connection, run, ids)
	return err
}

// PilotPatients lists a pilot's patients in order; with a run, that run's alone.
func (tx *Tx) PilotPatients(ctx context.Context, connection cura.ConnectionID, run string) ([]PilotSlot, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT position, ehr_id, done, report FROM sync.pilot_patients
		WHERE org_id = $1 AND connection_id = $2 AND ($3 = '' OR run_id::text = $3) ORDER BY position`, tx.org, connection, run)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (PilotSlot, error) {
		var slot PilotSlot
		var report []byte
		if err := row.Scan(&slot.Position, &slot.EHRID, &slot.Done, &report); err != nil || report == nil {
			return slot, err
		}
		slot.Report = new(cura.PilotPatient)
		return slot, json.Unmarshal(report, slot.Report)
	})
}

// PutPilotReport keeps what became of one patient and marks the slot done.
func (tx *Tx) PutPilotReport(ctx context.Context, connection cura.ConnectionID, report cura.PilotPatient) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE sync.pilot_patients SET report = $4, done = true
		WHERE org_id = $1 AND connection_id = $2 AND position = $3`, tx.org, connection, report.Position, report)
	return err
}

// PurgePilot deletes everything that pilots wrote to the transaction's org, which must be a sandbox org: the database
// refuses to delete records of any other. The audit log stays, with the fact.
func (tx *Tx) PurgePilot(ctx context.Context, shadow cura.ConnectionID, why string) error {
	var batch pgx.Batch
	// The foreign keys ask for this order.
	for _, table := range []string{
		"sync.pilot_patients", "cura.allergies", "cura.medications", "labs.observations", "cura.visits", "cura.consent_log",
		"sync.patient_links",
	} {
		batch.Queue(`DELETE FROM `+table+` WHERE org_id = $1 AND connection_id = $2`, tx.org, shadow)
	}
	batch.Queue(`DELETE FROM cura.profile_identifiers WHERE org_id = $1 AND connection_id = $2`, tx.org, shadow)
	for _, table := range []string{"cura.profiles", "sync.quarantine", "sync.reviews", "sync.resources", "sync.landing"} {
		batch.Queue(`DELETE FROM `+table+` WHERE org_id = $1 AND connection_id = $2`, tx.org, shadow)
	}
	batch.Queue(`
		DELETE FROM sync.run_counts WHERE org_id = $1
			AND run_id IN (SELECT run_id FROM sync.runs WHERE org_id = $1 AND connection_id = $2)`, tx.org, shadow)
	batch.Queue(`DELETE FROM sync.runs WHERE org_id = $1 AND connection_id = $2`, tx.org, shadow)
	tx.Audit(audit.Record{Kind: audit.PilotPurged, Connection: shadow, Outcome: audit.Success, Details: map[string]string{"why": why}})
	return tx.tx.SendBatch(ctx, &batch).Close()
}
