package store

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// DeadLetter is work that used up its retries, with what is needed to replay it. While it is open the watermark of its
// (type, partition) stands still, so nothing is lost meanwhile.
type DeadLetter struct {
	ID         cura.DeadLetterID `json:"id"`
	Connection cura.ConnectionID `json:"connection_id"`
	Type       cura.ResourceType `json:"type"`
	Partition  string            `json:"partition,omitempty"`
	Run        string            `json:"run_id"`
	Fault      fault.Kind        `json:"fault"`
	Detail     string            `json:"detail"`
	Attempts   int               `json:"attempts"`
	Times      int               `json:"times"`
	Since      *time.Time        `json:"since,omitempty"`
	OpenedAt   time.Time         `json:"opened_at"`
	LastAt     time.Time         `json:"last_at"`
	State      string            `json:"state"`
	ClosedAt   *time.Time        `json:"closed_at,omitempty"`
	ClosedBy   string            `json:"closed_by,omitempty"`
}

// OpenDeadLetter records that a pass gave up. A second failure of the same pass counts on the letter that is open.
func (tx *Tx) OpenDeadLetter(ctx context.Context, d DeadLetter) (cura.DeadLetterID, error) {
	var id cura.DeadLetterID
	var times int
	err := tx.tx.QueryRow(ctx, `
		INSERT INTO sync.dead_letters (org_id, dead_letter_id, connection_id, resource_type, partition, run_id, fault, detail, attempts, since)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,
			(SELECT watermark FROM sync.watermarks w WHERE w.org_id = $1 AND w.connection_id = $3 AND w.resource_type = $4 AND w.partition = $5))
		ON CONFLICT (org_id, connection_id, resource_type, partition) WHERE state = 'open' DO UPDATE
			SET times = sync.dead_letters.times + (sync.dead_letters.run_id <> excluded.run_id)::int, last_at = now(), run_id = excluded.run_id,
				fault = excluded.fault, detail = excluded.detail, attempts = excluded.attempts
		RETURNING dead_letter_id, times`,
		tx.org, uuid.NewString(), d.Connection, d.Type, d.Partition, d.Run, d.Fault, d.Detail, d.Attempts).Scan(&id, &times)
	if err != nil {
		return "", err
	}
	if times == 1 {
		tx.Audit(audit.Record{
			Kind: audit.DeadLetterOpened, Connection: d.Connection, Run: d.Run, Outcome: audit.Failure,
			Details: map[string]any{"dead_letter": id, "type": d.Type, "fault": d.Fault, "detail": d.Detail},
		})
	}
	return id, tx.RefreshAttention(ctx, d.Connection)
}

const deadLetterColumns = `dead_letter_id, connection_id, resource_type, partition, run_id, fault, detail, attempts, times, since,
	opened_at, last_at, state, closed_at, closed_by`

// DeadLetters lists the org's dead letters, newest first: the open ones, or all.
func (tx *Tx) DeadLetters(ctx context.Context, all bool) ([]DeadLetter, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT `+deadLetterColumns+` FROM sync.dead_letters WHERE org_id = $1 AND ($2 OR state = 'open') ORDER BY opened_at DESC`,
		tx.org, all)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[DeadLetter])
}

// DeadLetter reads one.
func (tx *Tx) DeadLetter(ctx context.Context, id cura.DeadLetterID) (DeadLetter, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT `+deadLetterColumns+` FROM sync.dead_letters WHERE org_id = $1 AND dead_letter_id = $2`, tx.org, id)
	if err != nil {
		return DeadLetter{}, err
	}
	d, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[DeadLetter])
	if errors.Is(err, pgx.ErrNoRows) {
		return d, fault.Newf("reading the dead letter", fault.NotFound, "there is no dead letter %s in this org", id).
			WithFix("List them with: starter dead-letters list --all")
	}
	return d, err
}

// DeadLettersOf counts the open dead letters that a run has left.
func (tx *Tx) DeadLettersOf(ctx context.Context, run string) (int, error) {
	var n int
	err := tx.tx.QueryRow(ctx, `
		SELECT count(*) FROM sync.dead_letters WHERE org_id = $1 AND run_id = $2 AND state = 'open'`, tx.org, run).Scan(&n)
	return n, err
}

// CloseDeadLetter ends a dead letter as replayed or discarded. Neither moves a watermark: the next run of the type
// reads the same range again.
func (tx *Tx) CloseDeadLetter(ctx context.Context, id cura.DeadLetterID, state, by string) error {
	var connection cura.ConnectionID
	err := tx.tx.QueryRow(ctx, `
		UPDATE sync.dead_letters SET state = $3, closed_at = now(), closed_by = $4
		WHERE org_id = $1 AND dead_letter_id = $2 AND state = 'open' RETURNING connection_id`, tx.org, id, state, by).Scan(&connection)
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.Newf("closing the dead letter", fault.Conflict, "dead letter %s isn't open", id)
	}
	if err != nil {
		return err
	}
	tx.Audit(audit.Record{
		Kind: audit.DeadLetterClosed, Actor: by, Connection: connection, Outcome: audit.Success,
		Details: map[string]any{"dead_letter": id, "state": state},
	})
	return tx.RefreshAttention(ctx, connection)
}

// recover closes the open dead letter of a pass that has now come to its end.
func (tx *Tx) recover(ctx context.Context, pass Pass) error {
	var id cura.DeadLetterID
	var state string
	err := tx.tx.QueryRow(ctx, `
		SELECT d.dead_letter_id, CASE r.kind WHEN 'replay' THEN 'replayed' ELSE 'recovered' END
		FROM sync.dead_letters d JOIN sync.runs r ON r.org_id = $1 AND r.run_id = $5
		WHERE d.org_id = $1 AND d.connection_id = $2 AND d.resource_type = $3 AND d.partition = $4 AND d.state = 'open'`,
		tx.org, pass.Connection, pass.Type, pass.Partition, pass.Run).Scan(&id, &state)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.CloseDeadLetter(ctx, id, state, "run "+pass.Run)
}
