package store

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// recordTable is the table of Cura's records of a type; "" for Consent, whose log only grows.
func recordTable(t cura.ResourceType) string {
	switch t {
	case cura.Patient:
		return "cura.profiles"
	case cura.AllergyIntolerance:
		return "cura.allergies"
	case cura.MedicationRequest, cura.MedicationStatement:
		return "cura.medications"
	case cura.Observation:
		return "labs.observations"
	case cura.Encounter:
		return "cura.visits"
	case cura.Consent:
	}
	return ""
}

// Tombstone marks resources that the EHR has no more. Their rows and their landing stay. It returns how many weren't
// marked before.
func (tx *Tx) Tombstone(ctx context.Context, pass Pass, ids []string, reason cura.GoneReason) (int, error) {
	rows, err := tx.tx.Query(ctx, `
		UPDATE sync.resources SET gone_at = now(), gone_reason = $5
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND ehr_id = ANY($4) AND gone_at IS NULL
		RETURNING ehr_id`, tx.org, pass.Connection, pass.Type, ids, string(reason))
	if err != nil {
		return 0, err
	}
	marked, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(marked) == 0 {
		return 0, err
	}
	if err := tx.markRecords(ctx, pass, marked, string(reason)); err != nil {
		return 0, err
	}
	// What waited for a person, or in quarantine, has nothing left to wait for.
	for _, table := range []string{"sync.quarantine", "sync.reviews"} {
		if _, err := tx.tx.Exec(ctx, `
			UPDATE `+table+` SET closed_at = now()
			WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND ehr_id = ANY($4) AND closed_at IS NULL`,
			tx.org, pass.Connection, pass.Type, marked); err != nil {
			return 0, err
		}
	}
	tx.Audit(audit.Record{
		Kind: audit.ResourcesGone, Connection: pass.Connection, Run: pass.Run, Outcome: audit.Success,
		Details: map[string]any{"type": pass.Type, "count": len(marked), "reason": reason},
	})
	return len(marked), nil
}

// markRecords sets the tombstone of Cura's records; an empty reason takes it away. A profile shows a patient's version only
// while no other source's is newer.
func (tx *Tx) markRecords(ctx context.Context, pass Pass, ids []string, reason string) error {
	table, found := recordTable(pass.Type), "resource_type = $5"
	switch table {
	case "":
		return nil
	case "cura.profiles":
		found = `profile_id IN (SELECT l.profile_id FROM sync.patient_links l
			WHERE l.org_id = $1 AND l.connection_id = $2 AND l.ehr_id = ANY($3) AND $5 = 'Patient')`
	}
	_, err := tx.tx.Exec(ctx, `
		UPDATE `+table+` SET gone_at = CASE WHEN $4 = '' THEN NULL ELSE now() END, gone_reason = nullif($4, '')
		WHERE org_id = $1 AND connection_id = $2 AND ehr_id = ANY($3) AND `+found, tx.org, pass.Connection, ids, reason, pass.Type)
	return err
}

// Met notes that the EHR has served items: it takes tombstones away from what is there again, sets them on what it has
// withdrawn (entered-in-error), and says by whom of the roster each was read.
func (tx *Tx) Met(ctx context.Context, pass Pass, items []Item) error {
	var ids, withdrawn []string
	for _, it := range items {
		switch {
		case it.Outcome == Stored && it.Record.EnteredInError:
			withdrawn = append(withdrawn, it.EHRID)
		case it.Outcome != Withheld:
			ids = append(ids, it.EHRID)
		}
	}
	if len(ids)+len(withdrawn) == 0 {
		return nil
	}
	if pass.Partition != "" {
		if _, err := tx.tx.Exec(ctx, `
			UPDATE sync.resources SET partition = $5
			WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND ehr_id = ANY($4) AND partition <> $5`,
			tx.org, pass.Connection, pass.Type, slices.Concat(ids, withdrawn), pass.Partition); err != nil {
			return err
		}
	}
	// What was withdrawn is there again only in a version that isn't; an unchanged one is the withdrawn one.
	rows, err := tx.tx.Query(ctx, `
		UPDATE sync.resources SET gone_at = NULL, gone_reason = NULL, absences = 0
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND ehr_id = ANY($4) AND (gone_at IS NOT NULL OR absences > 0)
			AND (gone_reason IS DISTINCT FROM 'entered-in-error' OR ehr_id = ANY($5))
		RETURNING ehr_id`, tx.org, pass.Connection, pass.Type, ids, stored(items))
	if err != nil {
		return err
	}
	back, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(back) > 0 {
		if err := tx.markRecords(ctx, pass, back, ""); err != nil {
			return err
		}
	}
	if len(withdrawn) > 0 {
		_, err = tx.Tombstone(ctx, pass, withdrawn, cura.GoneEnteredInError)
	}
	return err
}

// stored are the ids of the items that bring a new version.
func stored(items []Item) []string {
	var ids []string
	for _, it := range items {
		if it.Outcome == Stored {
			ids = append(ids, it.EHRID)
		}
	}
	return ids
}

// Absence is a resource that whole reads haven't brought, so many in a row.
type Absence struct {
	EHRID string
	Times int
}

// FinishPatient closes what was read of one roster member in one type: the watermark moves to candidate, and the member's
// dead letter is closed. With seen, the ids of a read that was whole, it counts and lists what is absent from it.
func (tx *Tx) FinishPatient(ctx context.Context, pass Pass, candidate time.Time, whole bool, seen []string) ([]Absence, error) {
	if err := tx.holdLease(ctx, pass); err != nil {
		return nil, err
	}
	var absent []Absence
	if whole {
		if seen == nil {
			seen = []string{}
		}
		rows, err := tx.tx.Query(ctx, `
			UPDATE sync.resources SET absences = absences + 1
			WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND partition = $4 AND gone_at IS NULL AND NOT ehr_id = ANY($5)
			RETURNING ehr_id, absences`, tx.org, pass.Connection, pass.Type, pass.Partition, seen)
		if err != nil {
			return nil, err
		}
		if absent, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Absence]); err != nil {
			return nil, err
		}
	}
	var batch pgx.Batch
	tx.putWatermark(&batch, pass, candidate)
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, err
	}
	return absent, tx.recover(ctx, pass)
}

// FinishType ends the pass of a run over a roster.
func (tx *Tx) FinishType(ctx context.Context, pass Pass) error {
	if err := tx.holdLease(ctx, pass); err != nil {
		return err
	}
	var batch pgx.Batch
	tx.countPage(&batch, pass, cura.Counts{}, true)
	tx.dropCursor(&batch, pass)
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	return tx.recover(ctx, pass)
}
