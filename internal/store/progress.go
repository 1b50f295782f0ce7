package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Run is one backfill, scheduled sync, pilot or replay.
type Run struct {
	ID         string            `json:"run_id"`
	Connection cura.ConnectionID `json:"connection_id"`
	Kind       cura.RunKind      `json:"kind"`
	WorkflowID string            `json:"workflow_id"`
	StartedAt  time.Time         `json:"started_at"`
	FinishedAt *time.Time        `json:"finished_at,omitempty"`
	Outcome    string            `json:"outcome"`
}

// StartRun records that a run has begun; a run that is begun again goes on with its counts.
func (tx *Tx) StartRun(ctx context.Context, run Run) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.runs (org_id, run_id, connection_id, kind, workflow_id) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (org_id, run_id) DO UPDATE SET outcome = 'running', finished_at = NULL`,
		tx.org, run.ID, run.Connection, run.Kind, run.WorkflowID)
	return err
}

// FinishRun closes a run with its outcome and leaves the run-level audit record. Counts that don't add up are a defect
// of ours: the run is refused, not closed. A run that is closed already stays as it is, and no second record is left.
func (tx *Tx) FinishRun(ctx context.Context, run string, details audit.RunDetails) (Run, error) {
	counts, err := tx.RunCounts(ctx, run)
	if err != nil {
		return Run{}, err
	}
	details.Counts = map[cura.ResourceType]cura.Counts{}
	for t, c := range counts {
		if !c.Balanced() {
			return Run{}, fault.Newf("finishing the run", fault.Unknown, "the counts of %s don't add up", t)
		}
		details.Counts[t] = c.Counts
	}
	tag, err := tx.tx.Exec(ctx, `
		UPDATE sync.runs SET outcome = $3, finished_at = now() WHERE org_id = $1 AND run_id = $2 AND outcome = 'running'`,
		tx.org, run, details.Outcome)
	if err != nil {
		return Run{}, err
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT run_id, connection_id, kind, workflow_id, started_at, finished_at, outcome FROM sync.runs
		WHERE org_id = $1 AND run_id = $2`, tx.org, run)
	if err != nil {
		return Run{}, err
	}
	finished, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Run])
	if err != nil || tag.RowsAffected() == 0 {
		return finished, err
	}
	outcome := audit.Success
	if details.Outcome != "complete" {
		outcome = audit.Failure
	}
	details.Kind = string(finished.Kind)
	tx.Audit(audit.Record{Kind: audit.RunFinished, Connection: finished.Connection, Run: run, Outcome: outcome, Details: details})
	return finished, nil
}

// TypeCounts are the counts of one type in a run; Done says that its pass came to its end.
type TypeCounts struct {
	cura.Counts

	Done bool
}

// RunCounts reads the counts of a run by type.
func (tx *Tx) RunCounts(ctx context.Context, run string) (map[cura.ResourceType]TypeCounts, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT resource_type, served, landed, stored, unchanged, quarantined, in_review, withheld, done
		FROM sync.run_counts WHERE org_id = $1 AND run_id = $2`, tx.org, run)
	if err != nil {
		return nil, err
	}
	counts := map[cura.ResourceType]TypeCounts{}
	var t cura.ResourceType
	var c TypeCounts
	_, err = pgx.ForEachRow(rows, []any{&t, &c.Served, &c.Landed, &c.Stored, &c.Unchanged, &c.Quarantined, &c.InReview, &c.Withheld, &c.Done},
		func() error {
			counts[t] = c
			return nil
		})
	return counts, err
}

// Runs lists a connection's runs since then, newest first.
func (tx *Tx) Runs(ctx context.Context, id cura.ConnectionID, since time.Time, limit int) ([]Run, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT run_id, connection_id, kind, workflow_id, started_at, finished_at, outcome FROM sync.runs
		WHERE org_id = $1 AND connection_id = $2 AND started_at >= $3 ORDER BY started_at DESC LIMIT $4`, tx.org, id, since, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Run])
}

// Pass is the reading of one (connection, type, partition) by one run, and who holds its lease.
type Pass struct {
	Connection cura.ConnectionID
	Type       cura.ResourceType
	// Partition is a roster member's id; "" where the whole system is searched.
	Partition string
	Run       string
	Fence     int64
}

// Cursor is where a pass stands: Next is the link to follow, empty where the window has to begin. Next may hold PHI and
// stays in the database and in the process that follows it.
type Cursor struct {
	// Since and Until are the window of _lastUpdated that is being read; nil: unbounded on that side.
	Since, Until *time.Time
	// Slice is which of the type's searches is being made.
	Slice     int
	Next      string
	Candidate *time.Time
	// After is the roster member up to whom a pass over a roster has come.
	After string
	// Rows are those of the window so far, and Total what the server said they are; 0: unknown.
	Rows, Total int
	// Restarts is how often the window began again: because the server had forgotten its page links, or skipped rows.
	Restarts int
	// PageSize is the _count to ask for; 0: the usual one.
	PageSize int
	// Begun says that the run has a cursor; Done, that it has read the pass to its end.
	Begun, Done bool
}

// Cursor reads where the run's pass stands.
func (tx *Tx) Cursor(ctx context.Context, pass Pass) (Cursor, error) {
	var c Cursor
	err := tx.tx.QueryRow(ctx, `
		SELECT coalesce(bool_or(done), false) FROM sync.run_counts
		WHERE org_id = $1 AND run_id = $2 AND resource_type = $3`, tx.org, pass.Run, pass.Type).Scan(&c.Done)
	if err != nil || c.Done {
		return c, err
	}
	err = tx.tx.QueryRow(ctx, `
		SELECT since, until, slice, next_link, candidate, after_member, rows_seen, rows_total, restarts, page_size FROM sync.cursors
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND partition = $4 AND run_id = $5`,
		tx.org, pass.Connection, pass.Type, pass.Partition, pass.Run).
		Scan(&c.Since, &c.Until, &c.Slice, &c.Next, &c.Candidate, &c.After, &c.Rows, &c.Total, &c.Restarts, &c.PageSize)
	if errors.Is(err, pgx.ErrNoRows) {
		return Cursor{}, nil
	}
	c.Begun = err == nil
	return c, err
}

// MoveCursor puts the run's pass somewhere else: to the beginning of a window, or behind a roster member.
func (tx *Tx) MoveCursor(ctx context.Context, pass Pass, c Cursor) error {
	if err := tx.holdLease(ctx, pass); err != nil {
		return err
	}
	var batch pgx.Batch
	tx.putCursor(&batch, pass, c)
	return tx.tx.SendBatch(ctx, &batch).Close()
}

func (tx *Tx) putCursor(batch *pgx.Batch, pass Pass, c Cursor) {
	batch.Queue(`
		INSERT INTO sync.cursors (org_id, connection_id, resource_type, partition, run_id, since, until, slice, next_link, candidate,
			after_member, rows_seen, rows_total, restarts, page_size)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		ON CONFLICT (org_id, connection_id, resource_type, partition, run_id) DO UPDATE
			SET since = excluded.since, until = excluded.until, slice = excluded.slice, next_link = excluded.next_link,
				candidate = excluded.candidate, after_member = excluded.after_member, rows_seen = excluded.rows_seen,
				rows_total = excluded.rows_total, restarts = excluded.restarts, page_size = excluded.page_size`,
		tx.org, pass.Connection, pass.Type, pass.Partition, pass.Run, c.Since, c.Until, c.Slice, c.Next, c.Candidate, c.After,
		c.Rows, c.Total, c.Restarts, c.PageSize)
}

// Watermark reads up to when (connection, type, partition) has been read whole; nil: never.
func (tx *Tx) Watermark(ctx context.Context, pass Pass) (*time.Time, error) {
	var w time.Time
	err := tx.tx.QueryRow(ctx, `
		SELECT watermark FROM sync.watermarks
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND partition = $4`,
		tx.org, pass.Connection, pass.Type, pass.Partition).Scan(&w)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil // no watermark is an answer, not an error
	}
	return &w, err
}

// Watermarks lists the watermarks of a connection by type.
func (tx *Tx) Watermarks(ctx context.Context, id cura.ConnectionID) (map[cura.ResourceType]time.Time, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT resource_type, min(watermark) FROM sync.watermarks WHERE org_id = $1 AND connection_id = $2 GROUP BY 1`, tx.org, id)
	if err != nil {
		return nil, err
	}
	marks := map[cura.ResourceType]time.Time{}
	var t cura.ResourceType
	var w time.Time
	_, err = pgx.ForEachRow(rows, []any{&t, &w}, func() error {
		marks[t] = w
		return nil
	})
	return marks, err
}

// Advance says where a pass stands after a page.
type Advance struct {
	// Cursor is where the pass goes on; nil: the page was its last.
	Cursor *Cursor
	// Candidate is the server's time on the pass's first page: the watermark that the last page sets.
	Candidate time.Time
	// Keep leaves cursor, watermark and dead letters as they are: the page is one patient's of a roster (FinishPatient closes
	// that), or what one resource's own read has brought.
	Keep bool
	// Part says that less than the whole was asked for, at a person's wish: the pass ends, and no watermark moves.
	Part bool
}

// done reports whether the page was the last of its pass.
func (a Advance) done() bool { return a.Cursor == nil && !a.Keep }

// whole reports whether everything up to Candidate has been read with this page.
func (a Advance) whole() bool { return a.done() && !a.Part }

// advance moves the cursor, or after the last page the watermark, in the transaction of the page's rows.
func (tx *Tx) advance(batch *pgx.Batch, pass Pass, a Advance) {
	switch {
	case a.Keep:
		return
	case a.Cursor != nil:
		tx.putCursor(batch, pass, *a.Cursor)
		return
	case !a.Part:
		tx.putWatermark(batch, pass, a.Candidate)
	}
	tx.dropCursor(batch, pass)
}

// putWatermark records up to when pass has been read whole. A watermark never moves back.
func (tx *Tx) putWatermark(batch *pgx.Batch, pass Pass, at time.Time) {
	batch.Queue(`
		INSERT INTO sync.watermarks (org_id, connection_id, resource_type, partition, watermark) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (org_id, connection_id, resource_type, partition) DO UPDATE
			SET watermark = greatest(sync.watermarks.watermark, excluded.watermark), updated_at = now()`,
		tx.org, pass.Connection, pass.Type, pass.Partition, at)
}

func (tx *Tx) dropCursor(batch *pgx.Batch, pass Pass) {
	batch.Queue(`
		DELETE FROM sync.cursors
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND partition = $4 AND run_id = $5`,
		tx.org, pass.Connection, pass.Type, pass.Partition, pass.Run)
}
