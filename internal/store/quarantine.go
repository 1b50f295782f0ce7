package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// QuarantineFilter narrows what is in quarantine; empty, all of it is meant.
type QuarantineFilter struct {
	Type cura.ResourceType
	// Path is an element, such as Observation.value; what is within it is meant too.
	Path string
	// Reason are words that the text of a reason has, in capitals or not.
	Reason string
	// Limit bounds a list; 0: all.
	Limit int
}

// QuarantineEntry is a resource in quarantine, without saying which of the EHR's it is.
type QuarantineEntry struct {
	ID       string            `json:"id"`
	Type     cura.ResourceType `json:"type"`
	Since    time.Time         `json:"since"`
	Reasons  []Reason          `json:"reasons"`
	ClosedAt *time.Time        `json:"closed_at,omitempty"`
}

// QuarantineGroup counts the resources of a type that are in quarantine for a reason; one with several reasons is in several groups.
type QuarantineGroup struct {
	Type  cura.ResourceType `json:"type"`
	Path  string            `json:"path"`
	Text  string            `json:"text"`
	Count int               `json:"count"`
}

// Quarantine lists a connection's resources that are in quarantine, the oldest first.
func (tx *Tx) Quarantine(ctx context.Context, connection cura.ConnectionID, f QuarantineFilter) ([]QuarantineEntry, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT q.quarantine_id::text, q.resource_type, q.opened_at, q.reasons, q.closed_at FROM sync.quarantine q
		WHERE q.org_id = $1 AND q.connection_id = $2 AND q.closed_at IS NULL AND ($3 = '' OR q.resource_type = $3) AND `+rejectedFor("$4", "$5")+`
		ORDER BY q.opened_at, q.quarantine_id LIMIT nullif($6, 0)`, tx.org, connection, f.Type, f.Path, f.Reason, f.Limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[QuarantineEntry])
}

// QuarantineSummary counts by type and reason what Quarantine lists, the most frequent first.
func (tx *Tx) QuarantineSummary(ctx context.Context, connection cura.ConnectionID, f QuarantineFilter) ([]QuarantineGroup, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT q.resource_type, e->>'path', e->>'text', count(DISTINCT q.quarantine_id) FROM sync.quarantine q, json_array_elements(q.reasons) AS e
		WHERE q.org_id = $1 AND q.connection_id = $2 AND q.closed_at IS NULL AND ($3 = '' OR q.resource_type = $3) AND `+rejectedFor("$4", "$5")+`
		GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3`, tx.org, connection, f.Type, f.Path, f.Reason)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[QuarantineGroup])
}

// Quarantined counts what Quarantine lists.
func (tx *Tx) Quarantined(ctx context.Context, connection cura.ConnectionID, f QuarantineFilter) (n int, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT count(*) FROM sync.quarantine q
		WHERE q.org_id = $1 AND q.connection_id = $2 AND q.closed_at IS NULL AND ($3 = '' OR q.resource_type = $3) AND `+rejectedFor("$4", "$5"),
		tx.org, connection, f.Type, f.Path, f.Reason).Scan(&n)
	return n, err
}

// QuarantineEntry reads one by its id, also one that is closed: fault.NotFound where the connection has none of it.
func (tx *Tx) QuarantineEntry(ctx context.Context, connection cura.ConnectionID, id string) (QuarantineEntry, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT quarantine_id::text, resource_type, opened_at, reasons, closed_at FROM sync.quarantine
		WHERE org_id = $1 AND connection_id = $2 AND quarantine_id = $3`, tx.org, connection, id)
	if err != nil {
		return QuarantineEntry{}, err
	}
	entry, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[QuarantineEntry])
	if errors.Is(err, pgx.ErrNoRows) {
		return entry, fault.Newf("looking into the quarantine", fault.NotFound, "the connection has no %s in quarantine", id)
	}
	return entry, err
}
