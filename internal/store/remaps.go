package store

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// LandedTypes are the types of which something has landed by a connection, in the order in which they are mapped again: Patient
// and Consent first, since they say whose the others are and whose are kept out.
func (tx *Tx) LandedTypes(ctx context.Context, connection cura.ConnectionID) ([]cura.ResourceType, error) {
	types := slices.DeleteFunc(cura.ResourceTypes(), func(t cura.ResourceType) bool { return t == cura.Consent })
	types = slices.Insert(types, 1, cura.Consent)
	rows, err := tx.tx.Query(ctx, `
		SELECT t.name FROM unnest($3::text[]) WITH ORDINALITY AS t (name, nth)
		WHERE EXISTS (SELECT FROM sync.resources r WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = t.name)
		ORDER BY t.nth`, tx.org, connection, texts(types))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[cura.ResourceType])
}

// LandedCount is how many resources of the pass's type Landed would list.
func (tx *Tx) LandedCount(ctx context.Context, pass Pass) (n int, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT count(*) FROM sync.resources WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3
			AND (gone_at IS NULL OR gone_reason = 'entered-in-error')`, tx.org, pass.Connection, pass.Type).Scan(&n)
	return n, err
}

// DropRemapSamples forgets the samples of a connection's runs but for those of run.
func (tx *Tx) DropRemapSamples(ctx context.Context, connection cura.ConnectionID, run string) error {
	_, err := tx.tx.Exec(ctx, `DELETE FROM sync.remap_samples WHERE org_id = $1 AND connection_id = $2 AND run_id <> $3`, tx.org, connection, run)
	return err
}

// BeginRetake reads how far a run has come in a type, and begins it where it hasn't come anywhere yet. The whole run is of one
// mapping version: fault.Conflict where it began with another one.
func (tx *Tx) BeginRetake(ctx context.Context, pass Pass, dryRun bool, mappingVersion string) (RetakeState, error) {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.remaps (org_id, run_id, resource_type, connection_id, dry_run, mapping_version) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT DO NOTHING`, tx.org, pass.Run, pass.Type, pass.Connection, dryRun, mappingVersion)
	if err != nil {
		return RetakeState{}, err
	}
	s := RetakeState{Retaken: Retaken{Type: pass.Type}}
	var began string
	err = tx.tx.QueryRow(ctx, `
		SELECT mapping_version, after_ehr_id, done, same, changed, rejected, accepted, in_review, excluded, withheld, skipped, elements, reasons
		FROM sync.remaps WHERE org_id = $1 AND run_id = $2 AND resource_type = $3`, tx.org, pass.Run, pass.Type).
		Scan(&began, &s.After, &s.Done, &s.Same, &s.Changed, &s.Rejected, &s.Accepted, &s.InReview, &s.Excluded, &s.Withheld, &s.Skipped,
			&s.Elements, &s.Reasons)
	if err == nil && !s.Done && began != mappingVersion {
		err = mappingMoved()
	}
	return s, err
}

func mappingMoved() error {
	return fault.New("mapping again", fault.Conflict, "the mapping has changed since the run began").
		WithFix("Begin anew: starter remap CONNECTION")
}

// moveRetake writes how far the run has come, from the place after. It fails where another attempt of the run has moved it
// meanwhile, which is the one that counts.
func (tx *Tx) moveRetake(ctx context.Context, pass Pass, after string, s RetakeState) error {
	elements, err := json.Marshal(s.Elements)
	if err != nil {
		return err
	}
	reasons, err := json.Marshal(s.Reasons)
	if err != nil {
		return err
	}
	if s.Done {
		s.After = ""
	}
	tag, err := tx.tx.Exec(ctx, `
		UPDATE sync.remaps SET after_ehr_id = $5, done = $6, same = $7, changed = $8, rejected = $9, accepted = $10, in_review = $11,
			excluded = $12, withheld = $13, skipped = $14, elements = $15, reasons = $16, updated_at = now()
		WHERE org_id = $1 AND run_id = $2 AND resource_type = $3 AND after_ehr_id = $4 AND NOT done`,
		tx.org, pass.Run, pass.Type, after, s.After, s.Done, s.Same, s.Changed, s.Rejected, s.Accepted, s.InReview,
		s.Excluded, s.Withheld, s.Skipped, string(elements), string(reasons))
	if err == nil && tag.RowsAffected() == 0 {
		err = fault.Newf("mapping again", fault.Busy, "another attempt of the run is mapping %s", pass.Type)
	}
	return err
}

// RemapProgress lists how far a run that maps again has come in its types, in no order. begun is false where no worker has begun it.
func (tx *Tx) RemapProgress(ctx context.Context, run string) (begun bool, types []RetakeState, err error) {
	if err := tx.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM sync.runs WHERE org_id = $1 AND run_id = $2)`, tx.org, run).Scan(&begun); err != nil {
		return false, nil, err
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT resource_type, done, same, changed, rejected, accepted, in_review, excluded, withheld, skipped FROM sync.remaps
		WHERE org_id = $1 AND run_id = $2`, tx.org, run)
	if err != nil {
		return false, nil, err
	}
	types, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (RetakeState, error) {
		var s RetakeState
		err := row.Scan(&s.Type, &s.Done, &s.Same, &s.Changed, &s.Rejected, &s.Accepted, &s.InReview, &s.Excluded, &s.Withheld, &s.Skipped)
		return s, err
	})
	return begun, types, err
}

// RetakenPage is a page of resources that were decided again.
type RetakenPage struct {
	// After is where the run stood before the page, State where it stands with it.
	After string
	State RetakeState
	// Landings are the versions of all the page's resources that were decided about, by EHR id.
	Landings map[string]int64
	// Items are those of which something is written, with their outcomes. One with the landing 0 lands once more.
	Items []Item
	// Same are the EHR ids of those whose rows stay as they are, and only say that this mapping version makes them.
	Same []string
	// Samples are for people to look at, of a dry run.
	Samples []RemapSample
}

// ApplyRetaken writes a page of resources that were decided again, with how far the run has come. It takes the lease of the type
// for this one transaction, so that no reader ever waits longer than that; fault.Busy: a reader has it. ErrSettledMeanwhile: what
// the page was decided by has changed; decide it again.
func (tx *Tx) ApplyRetaken(ctx context.Context, pass Pass, overrides int, mappingVersion string, page RetakenPage) error {
	if len(page.Items)+len(page.Same) > 0 {
		pass, err := tx.TakeLease(ctx, pass)
		if err != nil {
			return err
		}
		if err := tx.writeRetaken(ctx, pass, overrides, mappingVersion, page); err != nil {
			return err
		}
		if err := tx.ReleaseLease(ctx, pass); err != nil {
			return err
		}
	}
	return tx.moveRetake(ctx, pass, page.After, page.State)
}

func (tx *Tx) writeRetaken(ctx context.Context, pass Pass, overrides int, mappingVersion string, page RetakenPage) error {
	// Who sets other overrides waits for this page, and no page comes after with those from before.
	var current int
	err := tx.tx.QueryRow(ctx, `
		SELECT coalesce(overrides_version, 0) FROM sync.connections WHERE org_id = $1 AND connection_id = $2 FOR SHARE`,
		tx.org, pass.Connection).Scan(&current)
	switch {
	case err != nil:
		return err
	case current != overrides:
		return mappingMoved()
	}
	if err := tx.stillNewest(ctx, pass, page.Landings); err != nil {
		return err
	}
	if len(page.Items) > 0 {
		if err := tx.ApplyWoken(ctx, pass, mappingVersion, page.Items); err != nil {
			return err
		}
	}
	if err := tx.withdraw(ctx, pass, page.Items); err != nil {
		return err
	}
	return tx.mappedBy(ctx, pass, mappingVersion, page.Same)
}

// stillNewest makes sure that no reader has brought another version since.
func (tx *Tx) stillNewest(ctx context.Context, pass Pass, landings map[string]int64) error {
	ids := make([]string, 0, len(landings))
	for id := range landings {
		ids = append(ids, id)
	}
	heads, err := tx.Heads(ctx, pass.Connection, pass.Type, ids)
	if err != nil {
		return err
	}
	for id, landing := range landings {
		if heads[id].Landing != landing {
			return ErrSettledMeanwhile
		}
	}
	return nil
}

// withdraw sets the tombstones of the records that their mapping shows to be entered in error, and takes away those of records that
// it doesn't show so any more.
func (tx *Tx) withdraw(ctx context.Context, pass Pass, items []Item) error {
	var withdrawn, standing []string
	for _, it := range items {
		switch {
		case it.Outcome != Stored:
		case it.Record.EnteredInError:
			withdrawn = append(withdrawn, it.EHRID)
		default:
			standing = append(standing, it.EHRID)
		}
	}
	if len(withdrawn) > 0 {
		if _, err := tx.Tombstone(ctx, pass, withdrawn, cura.GoneEnteredInError); err != nil {
			return err
		}
	}
	rows, err := tx.tx.Query(ctx, `
		UPDATE sync.resources SET gone_at = NULL, gone_reason = NULL
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND ehr_id = ANY ($4) AND gone_reason = 'entered-in-error'
		RETURNING ehr_id`, tx.org, pass.Connection, pass.Type, standing)
	if err != nil {
		return err
	}
	back, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(back) == 0 {
		return err
	}
	return tx.markRecords(ctx, pass, back, "")
}

// mappedBy notes by which mapping version rows are made that are what they were. The entries of the consent log say by which they
// were made then.
func (tx *Tx) mappedBy(ctx context.Context, pass Pass, mappingVersion string, ids []string) error {
	table := recordTable(pass.Type)
	if table == "" || len(ids) == 0 {
		return nil
	}
	found := `org_id = $1 AND connection_id = $2 AND resource_type = $5 AND ehr_id = ANY ($3)`
	if pass.Type == cura.Patient {
		found = `org_id = $1 AND connection_id = $2 AND ehr_id = ANY ($3) AND profile_id IN (
			SELECT k.profile_id FROM sync.patient_links k WHERE k.org_id = $1 AND k.connection_id = $2 AND k.ehr_id = ANY ($3) AND $5 = 'Patient')`
	}
	_, err := tx.tx.Exec(ctx, `UPDATE `+table+` SET mapping_version = $4 WHERE mapping_version <> $4 AND `+found,
		tx.org, pass.Connection, ids, mappingVersion, pass.Type)
	return err
}

// NoteRetaken writes how far a dry run has come, and what people may look at.
func (tx *Tx) NoteRetaken(ctx context.Context, pass Pass, page RetakenPage) error {
	for _, s := range page.Samples {
		reasons, err := json.Marshal(s.Reasons)
		if err != nil {
			return err
		}
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO sync.remap_samples (org_id, run_id, resource_type, ehr_id, connection_id, kind, reasons)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
			tx.org, pass.Run, pass.Type, s.ehrID(), pass.Connection, s.Kind, string(reasons))
		if err != nil {
			return err
		}
	}
	return tx.moveRetake(ctx, pass, page.After, page.State)
}

// RemapSample is a resource that a dry run has found to come out otherwise. It holds PHI.
type RemapSample struct {
	Type cura.ResourceType `json:"type"`
	Kind RetakeKind        `json:"kind"`
	// Reasons are why it is in quarantine, or would be.
	Reasons []Reason `json:"reasons,omitempty"`
	// Landed is the resource with what Cura has of it.
	Landed Landed `json:"-"`
}

func (s RemapSample) ehrID() string { return s.Landed.Item.EHRID }

// RemapSamples lists what a dry run has kept for people to look at: of each type at most limit.
func (tx *Tx) RemapSamples(ctx context.Context, connection cura.ConnectionID, run string, limit int) ([]RemapSample, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT resource_type, kind, reasons, ehr_id FROM (
			SELECT resource_type, kind, reasons, ehr_id, row_number() OVER (PARTITION BY resource_type ORDER BY ehr_id) AS nth FROM sync.remap_samples
			WHERE org_id = $1 AND run_id = $2) AS s
		WHERE nth <= $3 ORDER BY resource_type, nth`, tx.org, run, limit)
	if err != nil {
		return nil, err
	}
	samples, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (RemapSample, error) {
		var s RemapSample
		err := row.Scan(&s.Type, &s.Kind, &s.Reasons, &s.Landed.Item.EHRID)
		return s, err
	})
	if err != nil {
		return nil, err
	}
	for i := range samples {
		s := &samples[i]
		pass := Pass{Connection: connection, Type: s.Type}
		landed, err := tx.Landed(ctx, pass, Retake{ehrID: s.ehrID()}, "", "", 1)
		if err != nil {
			return nil, err
		}
		if len(landed) > 0 {
			s.Landed = landed[0] // or it has gone since
		}
	}
	return samples, nil
}
