package store

import (
	"bytes"
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// Difference is one resource that the source and Cura don't agree on. EHRID is PHI.
type Difference struct {
	Type  cura.ResourceType `json:"type"`
	EHRID string            `json:"ehr_id"`
	// Kind is missing, extra or changed.
	Kind string `json:"kind"`
}

// ComparePage notes the resources of a page as met, and which of them Cura lacks or has otherwise, and moves the cursor. A
// version that is older than Cura's doesn't differ: the server hasn't caught up with itself.
func (tx *Tx) ComparePage(ctx context.Context, pass Pass, items []Item, advance Advance) error {
	n := len(items)
	ids, hashes, updated := make([]string, n), make([][]byte, n), make([]*time.Time, n)
	for i := range items {
		ids[i], hashes[i], updated[i] = items[i].EHRID, items[i].Hash[:], items[i].LastUpdated
	}
	var batch pgx.Batch
	batch.Queue(`
		INSERT INTO sync.seen (org_id, run_id, resource_type, ehr_id) SELECT $1, $2, $3, unnest($4::text[]) ON CONFLICT DO NOTHING`,
		tx.org, pass.Run, pass.Type, ids)
	batch.Queue(`
		INSERT INTO sync.differences (org_id, run_id, resource_type, ehr_id, kind)
		SELECT DISTINCT ON (p.ehr_id) $1::uuid, $2::uuid, $3, p.ehr_id, CASE WHEN r.ehr_id IS NULL OR r.gone_at IS NOT NULL THEN 'missing' ELSE 'changed' END
		FROM unnest($5::text[], $6::bytea[], $7::timestamptz[]) AS p (ehr_id, content_hash, last_updated)
		LEFT JOIN sync.resources r ON r.org_id = $1 AND r.connection_id = $4 AND r.resource_type = $3 AND r.ehr_id = p.ehr_id
		WHERE r.ehr_id IS NULL OR (r.gone_at IS NOT NULL AND r.gone_reason <> 'entered-in-error')
			OR (r.content_hash <> p.content_hash AND (p.last_updated < r.last_updated) IS NOT TRUE)
		ON CONFLICT (org_id, run_id, resource_type, ehr_id) DO UPDATE SET kind = excluded.kind`,
		tx.org, pass.Run, pass.Type, pass.Connection, ids, hashes, updated)
	tx.advance(&batch, pass, advance)
	if advance.done() {
		tx.countPage(&batch, pass, cura.Counts{}, true)
	}
	return tx.tx.SendBatch(ctx, &batch).Close()
}

// Has reports whether Cura has each of items in the very version, or in a newer one.
func (tx *Tx) Has(ctx context.Context, pass Pass, items []Item) (bool, error) {
	ids := make([]string, len(items))
	for i := range items {
		ids[i] = items[i].EHRID
	}
	var gone bool
	err := tx.tx.QueryRow(ctx, `
		SELECT coalesce(bool_or(gone_at IS NOT NULL AND gone_reason <> 'entered-in-error'), false) FROM sync.resources
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND ehr_id = ANY($4)`, tx.org, pass.Connection, pass.Type, ids).Scan(&gone)
	if err != nil || gone {
		return false, err
	}
	heads, err := tx.Heads(ctx, pass.Connection, pass.Type, ids)
	if err != nil {
		return false, err
	}
	for i := range items {
		it := &items[i]
		head, ok := heads[it.EHRID]
		newer := it.LastUpdated != nil && head.LastUpdated != nil && it.LastUpdated.Before(*head.LastUpdated)
		if !ok || !newer && !bytes.Equal(head.Hash, it.Hash[:]) {
			return false, nil
		}
	}
	return true, nil
}

// Extras notes what Cura has and the source hasn't served. Of a type that is read by roster, only the members' resources
// were asked for.
func (tx *Tx) Extras(ctx context.Context, pass Pass, byRoster bool) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.differences (org_id, run_id, resource_type, ehr_id, kind)
		SELECT $1, $2, $3, r.ehr_id, 'extra' FROM sync.resources r
		WHERE r.org_id = $1 AND r.connection_id = $4 AND r.resource_type = $3 AND r.gone_at IS NULL AND `+compared+`
			AND NOT EXISTS (SELECT FROM sync.seen s WHERE s.org_id = $1 AND s.run_id = $2 AND s.resource_type = $3 AND s.ehr_id = r.ehr_id)
		ON CONFLICT (org_id, run_id, resource_type, ehr_id) DO UPDATE SET kind = 'extra'`,
		tx.org, pass.Run, pass.Type, pass.Connection, byRoster)
	return err
}

// compared are the resources r that a comparison is about: all, or ($5) those of the roster's members.
const compared = `(NOT $5::boolean OR EXISTS (SELECT FROM sync.roster m
	WHERE m.org_id = $1 AND m.connection_id = $4 AND m.member_id::text = r.partition AND m.removed_at IS NULL))`

// Differences lists up to limit differences that a run has found.
func (tx *Tx) Differences(ctx context.Context, run string, t cura.ResourceType, limit int) ([]Difference, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT resource_type, ehr_id, kind FROM sync.differences
		WHERE org_id = $1 AND run_id = $2 AND ($3 = '' OR resource_type = $3) ORDER BY resource_type, kind, ehr_id LIMIT $4`,
		tx.org, run, t, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Difference])
}

// DropDifference forgets a difference that is none any more.
func (tx *Tx) DropDifference(ctx context.Context, run string, d Difference) error {
	_, err := tx.tx.Exec(ctx, `
		DELETE FROM sync.differences WHERE org_id = $1 AND run_id = $2 AND resource_type = $3 AND ehr_id = $4`, tx.org, run, d.Type, d.EHRID)
	return err
}

// Absent counts one more whole read that hasn't brought a resource, and gives how many there were in a row.
func (tx *Tx) Absent(ctx context.Context, pass Pass, id string) (int, error) {
	var times int
	err := tx.tx.QueryRow(ctx, `
		UPDATE sync.resources SET absences = absences + 1
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND ehr_id = $4 RETURNING absences`,
		tx.org, pass.Connection, pass.Type, id).Scan(&times)
	return times, err
}

// PutReconciliation closes the comparison of a type: its numbers are taken from what was noted, and the ids that were met
// are forgotten. counted, unreadable and repaired are the caller's.
func (tx *Tx) PutReconciliation(ctx context.Context, pass Pass, r cura.Reconciliation, byRoster bool) (cura.Reconciliation, error) {
	rows, err := tx.tx.Query(ctx, `
		INSERT INTO sync.reconciliations AS x (org_id, run_id, resource_type, connection_id, counted, source, cura, missing, extra, changed,
			unreadable, repaired)
		SELECT $1, $2, $3, $4, $6::bigint,
			(SELECT count(*) FROM sync.seen s WHERE s.org_id = $1 AND s.run_id = $2 AND s.resource_type = $3),
			(SELECT count(*) FROM sync.resources r WHERE r.org_id = $1 AND r.connection_id = $4 AND r.resource_type = $3
				AND (r.gone_at IS NULL OR r.gone_reason = 'entered-in-error') AND `+compared+`),
			count(*) FILTER (WHERE kind = 'missing'), count(*) FILTER (WHERE kind = 'extra'), count(*) FILTER (WHERE kind = 'changed'),
			$7::bigint, $8::bigint
		FROM sync.differences d WHERE d.org_id = $1 AND d.run_id = $2 AND d.resource_type = $3
		ON CONFLICT (org_id, run_id, resource_type) DO UPDATE SET source = excluded.source, cura = excluded.cura, missing = excluded.missing,
			extra = excluded.extra, changed = excluded.changed, unreadable = excluded.unreadable, repaired = excluded.repaired
		RETURNING x.resource_type, x.counted, x.source, x.cura, x.missing, x.extra, x.changed, x.unreadable, x.repaired, x.compared_at`,
		tx.org, pass.Run, pass.Type, pass.Connection, byRoster, r.Counted, r.Unreadable, r.Repaired)
	if err != nil {
		return r, err
	}
	if r, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[cura.Reconciliation]); err != nil {
		return r, err
	}
	outcome := audit.Success
	if r.Missing+r.Extra+r.Changed > 0 {
		outcome = audit.Failure
	}
	tx.Audit(audit.Record{Kind: audit.Reconciled, Connection: pass.Connection, Run: pass.Run, Outcome: outcome, Details: r})
	_, err = tx.tx.Exec(ctx, `DELETE FROM sync.seen WHERE org_id = $1 AND run_id = $2 AND resource_type = $3`, tx.org, pass.Run, pass.Type)
	return r, err
}

// Reconciliations reads the comparisons of a run, by type.
func (tx *Tx) Reconciliations(ctx context.Context, run string) ([]cura.Reconciliation, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT resource_type, counted, source, cura, missing, extra, changed, unreadable, repaired, compared_at
		FROM sync.reconciliations WHERE org_id = $1 AND run_id = $2 ORDER BY resource_type`, tx.org, run)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[cura.Reconciliation])
}
