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
	Partition  string
	Run        string
	Fence      int64
}

// leaseTTL is how long a reader that fell silent keeps others out. Each page renews it.
const leaseTTL = 2 * time.Minute

// TakeLease makes run the only reader of (connection, type) and returns pass with its fence. The same run takes over
// from itself at once, as it does after a crash; another run gets fault.Busy until the lease is released or runs out.
func (tx *Tx) TakeLease(ctx context.Context, pass Pass) (Pass, error) {
	err := tx.tx.QueryRow(ctx, `
		INSERT INTO sync.leases (org_id, connection_id, resource_type, holder, fence, expires_at)
		VALUES ($1, $2, $3, $4, 1, now() + $5)
		ON CONFLICT (org_id, connection_id, resource_type) DO UPDATE
			SET holder = excluded.holder, fence = sync.leases.fence + 1, expires_at = excluded.expires_at
			WHERE sync.leases.holder = excluded.holder OR sync.leases.expires_at < now()
		RETURNING fence`, tx.org, pass.Connection, pass.Type, pass.Run, leaseTTL).Scan(&pass.Fence)
	if errors.Is(err, pgx.ErrNoRows) {
		return pass, fault.Newf("taking the lease", fault.Busy, "another run is reading %s", pass.Type).After(5 * time.Second)
	}
	return pass, err
}

// renewLease proves that pass still holds its lease; without it the page isn't committed.
func (tx *Tx) renewLease(ctx context.Context, pass Pass) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE sync.leases SET expires_at = now() + $6
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND holder = $4 AND fence = $5`,
		tx.org, pass.Connection, pass.Type, pass.Run, pass.Fence, leaseTTL)
	if err == nil && tag.RowsAffected() == 0 {
		return fault.Newf("renewing the lease", fault.Busy, "another reader of %s has taken over", pass.Type)
	}
	return err
}

// ReleaseLease lets the next reader in. The row stays, since its fence must go on growing.
func (tx *Tx) ReleaseLease(ctx context.Context, pass Pass) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE sync.leases SET expires_at = '-infinity', holder = ''
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND holder = $4 AND fence = $5`,
		tx.org, pass.Connection, pass.Type, pass.Run, pass.Fence)
	return err
}

// Cursor is where a pass stands: Next is the link to follow, empty where the pass has to begin. Next may hold PHI and
// stays in the database and in the process that follows it.
type Cursor struct {
	Since     *time.Time
	Next      string
	Candidate *time.Time
	// Restarts is how often the pass began again because the server had forgotten its page links.
	Restarts int
	// PageSize is the _count to ask for; 0: the usual one.
	PageSize int
	// Done says that this run has read the pass to its end.
	Done bool
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
		SELECT since, next_link, candidate, restarts, page_size FROM sync.cursors
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND partition = $4 AND run_id = $5`,
		tx.org, pass.Connection, pass.Type, pass.Partition, pass.Run).Scan(&c.Since, &c.Next, &c.Candidate, &c.Restarts, &c.PageSize)
	if errors.Is(err, pgx.ErrNoRows) {
		return Cursor{}, nil
	}
	return c, err
}

// RestartPass makes the pass begin again at its watermark: because the server has forgotten its page links, which is
// counted, or with pages of another size.
func (tx *Tx) RestartPass(ctx context.Context, pass Pass, restarts, pageSize int) error {
	if err := tx.renewLease(ctx, pass); err != nil {
		return err
	}
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.cursors (org_id, connection_id, resource_type, partition, run_id, next_link, restarts, page_size)
		VALUES ($1, $2, $3, $4, $5, '', $6, $7)
		ON CONFLICT (org_id, connection_id, resource_type, partition, run_id) DO UPDATE
			SET next_link = '', since = NULL, candidate = NULL, restarts = excluded.restarts, page_size = excluded.page_size`,
		tx.org, pass.Connection, pass.Type, pass.Partition, pass.Run, restarts, pageSize)
	return err
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

// Advance says where a pass stands after a page: at a link, or at its end.
type Advance struct {
	Since     time.Time // what the pass asked for; zero: everything
	Next      string    // the link to the next page; empty: this was the last
	Candidate time.Time // the server's time on the first page
}

// advance moves the cursor, or after the last page the watermark, in the transaction of the page's rows. A watermark
// never moves back.
func (tx *Tx) advance(batch *pgx.Batch, pass Pass, a Advance) {
	if a.Next != "" {
		var since *time.Time
		if !a.Since.IsZero() {
			since = &a.Since
		}
		batch.Queue(`
			INSERT INTO sync.cursors (org_id, connection_id, resource_type, partition, run_id, since, next_link, candidate)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (org_id, connection_id, resource_type, partition, run_id) DO UPDATE
				SET since = excluded.since, next_link = excluded.next_link, candidate = excluded.candidate`,
			tx.org, pass.Connection, pass.Type, pass.Partition, pass.Run, since, a.Next, a.Candidate)
		return
	}
	batch.Queue(`
		INSERT INTO sync.watermarks (org_id, connection_id, resource_type, partition, watermark) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (org_id, connection_id, resource_type, partition) DO UPDATE
			SET watermark = greatest(sync.watermarks.watermark, excluded.watermark), updated_at = now()`,
		tx.org, pass.Connection, pass.Type, pass.Partition, a.Candidate)
	batch.Queue(`
		DELETE FROM sync.cursors
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND partition = $4 AND run_id = $5`,
		tx.org, pass.Connection, pass.Type, pass.Partition, pass.Run)
}
