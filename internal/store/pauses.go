package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// Pause says that a connection, or one type of it, isn't read until somebody resumes it.
type Pause struct {
	// Type is empty where the whole connection is paused.
	Type  cura.ResourceType `json:"type,omitempty"`
	Since time.Time         `json:"since"`
	// By is who paused it, as in the audit log.
	By string `json:"by"`
	// Reason is what they said; it may be empty.
	Reason string `json:"reason,omitempty"`
	// Halt: it is a kill switch, which starter unhalt lifts.
	Halt bool `db:"-" json:"halt,omitempty"`
}

const pauseColumns = `resource_type, since, paused_by, reason`

// Pause stops a connection (t empty) or one type of it, as p says; p.Since is the database's to set. One that is paused
// already stays as it is: fresh is false then, and the pause that stands is returned. It is audited.
func (tx *Tx) Pause(ctx context.Context, id cura.ConnectionID, p Pause) (standing Pause, fresh bool, err error) {
	tag, err := tx.tx.Exec(ctx, `
		INSERT INTO sync.pauses (org_id, connection_id, resource_type, paused_by, reason) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT DO NOTHING`, tx.org, id, p.Type, p.By, p.Reason)
	if err != nil {
		return Pause{}, false, err
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT `+pauseColumns+` FROM sync.pauses WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3`, tx.org, id, p.Type)
	if err != nil {
		return Pause{}, false, err
	}
	standing, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Pause])
	if err != nil || tag.RowsAffected() == 0 {
		return standing, false, err
	}
	tx.Audit(audit.Record{
		Kind: audit.SyncPaused, Actor: p.By, Connection: id, Outcome: audit.Success, Details: map[string]any{"type": p.Type, "reason": p.Reason},
	})
	return standing, true, tx.RefreshAttention(ctx, id)
}

// Resume lets a connection (t empty) or one type of it go on, and reports whether it was paused. It is audited. A pause of
// the whole connection and those of its types are apart: each is resumed by itself.
func (tx *Tx) Resume(ctx context.Context, id cura.ConnectionID, t cura.ResourceType, actor string) (bool, error) {
	tag, err := tx.tx.Exec(ctx, `
		DELETE FROM sync.pauses WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3`, tx.org, id, t)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	tx.Audit(audit.Record{Kind: audit.SyncResumed, Actor: actor, Connection: id, Outcome: audit.Success, Details: map[string]any{"type": t}})
	return true, tx.RefreshAttention(ctx, id)
}

// Pauses lists the pauses of a connection, that of the whole first.
func (tx *Tx) Pauses(ctx context.Context, id cura.ConnectionID) ([]Pause, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT `+pauseColumns+` FROM sync.pauses WHERE org_id = $1 AND connection_id = $2 ORDER BY resource_type`, tx.org, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Pause])
}

// Paused finds what keeps a type from being read: a kill switch, else the pause of the whole connection, else the type's
// own. nil: it may be read.
func (tx *Tx) Paused(ctx context.Context, id cura.ConnectionID, t cura.ResourceType) (*Pause, error) {
	var p Pause
	err := tx.tx.QueryRow(ctx, `
		SELECT true AS halt, '' AS resource_type, since, actor, reason FROM sync.halts
		WHERE org_id = $1 AND what = 'pulls' AND lifted_at IS NULL AND (connection_id IS NULL OR connection_id = $2)
		UNION ALL
		SELECT false, `+pauseColumns+` FROM sync.pauses WHERE org_id = $1 AND connection_id = $2 AND resource_type IN ('', $3)
		ORDER BY halt DESC, resource_type, since LIMIT 1`, tx.org, id, t).Scan(&p.Halt, &p.Type, &p.Since, &p.By, &p.Reason)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // that nothing is paused is an answer, not an error
	}
	return &p, err
}
