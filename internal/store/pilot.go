package store

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
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

// ClearPilotChoices forgets what PutPilotChoices kept: EHR ids are PHI, and nobody needs them once the pilot is over.
func (tx *Tx) ClearPilotChoices(ctx context.Context, connection cura.ConnectionID) error {
	tag, err := tx.tx.Exec(ctx, `DELETE FROM sync.pilot_choices WHERE org_id = $1 AND connection_id = $2`, tx.org, connection)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	tx.Audit(audit.Record{Kind: audit.ChoicesStored, Connection: connection, Outcome: audit.Success, Details: map[string]int{"patients": 0}})
	return nil
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

// TryPatient is ApplyPatient, except that the database may refuse some of items: nothing is written then, and refused tells
// which they are. Each is tried in this very transaction, since the rows that they refer to aren't committed yet.
func (tx *Tx) TryPatient(ctx context.Context, pass Pass, mappingVersion string, items []Item) (counts cura.Counts, refused []int, err error) {
	err = tx.savepoint(ctx, func(sub *Tx) error {
		counts, err = sub.ApplyPatient(ctx, pass, mappingVersion, items)
		return err
	})
	if !fault.Is(err, fault.Data) {
		return counts, nil, err
	}
	undo := fault.New("trying an item", fault.Unknown, "this is undone")
	for i := range items {
		if items[i].Outcome != Stored {
			continue
		}
		tried := tx.savepoint(ctx, func(sub *Tx) error {
			if _, err := sub.applyItems(ctx, pass, mappingVersion, items[i:i+1]); err != nil {
				return err
			}
			return undo
		})
		switch {
		case fault.Is(tried, fault.Data):
			refused = append(refused, i)
		case !errors.Is(tried, undo):
			return cura.Counts{}, nil, tried
		}
	}
	if len(refused) > 0 {
		err = nil
	}
	return cura.Counts{}, refused, err
}

// savepoint runs fn within the transaction; an error of fn undoes what fn did, and leaves the rest as it was.
func (tx *Tx) savepoint(ctx context.Context, fn func(*Tx) error) error {
	sub := &Tx{store: tx.store, org: tx.org}
	err := pgx.BeginFunc(ctx, tx.tx, func(pgtx pgx.Tx) error {
		sub.tx = pgtx
		return fn(sub)
	})
	if err != nil {
		return translate(err)
	}
	tx.records = append(tx.records, sub.records...)
	return nil
}

// PurgePilot deletes everything that a shadow connection's pilots wrote to the transaction's org, which must be a sandbox
// org: the database refuses to delete records of any other. No two shadows share a row, so that the one's purge never meets
// the other's. The audit log stays, with the fact.
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
