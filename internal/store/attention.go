package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Waiting is one thing that waits for a person: since when, why, and the command that moves it on.
type Waiting struct {
	Connection cura.ConnectionID `json:"connection_id"`
	// What is onboarding, type-off, dead-letter, review, failing, paused, push, halted or behind.
	What  string    `json:"what"`
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
	// Commands hold CONNECTION where the connection's name belongs.
	Commands []string `json:"commands"`
}

// waitingSQL is everything in the org that waits for a person. It names no patient.
const waitingSQL = `
	SELECT connection_id, 'onboarding' AS what, attention_since AS since, why, commands
	FROM sync.connections WHERE org_id = $1 AND health = 'attention' AND removed_at IS NULL
	UNION ALL
	SELECT connection_id, 'type-off', off_since, resource_type || ' is switched off: ' || reason,
		ARRAY['starter connection show CONNECTION', 'starter sync CONNECTION']
	FROM sync.type_switches WHERE org_id = $1 AND reason <> '` + ExcludedType + `'
	UNION ALL
	SELECT connection_id, 'dead-letter', opened_at, resource_type || ' gave up after ' || attempts || ' attempts: ' || detail,
		ARRAY['starter dead-letters show ' || dead_letter_id, 'starter dead-letters replay ' || dead_letter_id]
	FROM sync.dead_letters WHERE org_id = $1 AND state = 'open'
	UNION ALL
	SELECT connection_id, 'review', min(opened_at), count(*) || ' patients wait for a decision: ' || reason, ARRAY['starter reviews list CONNECTION']
	FROM sync.reviews WHERE org_id = $1 AND closed_at IS NULL AND decided_at IS NULL GROUP BY connection_id, reason
	UNION ALL
	SELECT connection_id, 'failing', failing_since, 'the EHR has failed ' || failures_in_a_row || ' requests in a row',
		ARRAY['starter test CONNECTION', 'starter connection show CONNECTION']
	FROM sync.pace WHERE org_id = $1 AND alerted_at IS NOT NULL AND failing_since IS NOT NULL
	UNION ALL
	SELECT connection_id, 'paused', since, coalesce(nullif(resource_type, ''), 'the connection') || ' is paused by ' || paused_by
			|| CASE WHEN reason = '' THEN '' ELSE ': ' || reason END,
		ARRAY['starter resume CONNECTION' || CASE WHEN resource_type = '' THEN '' ELSE ' --type ' || resource_type END]
	FROM sync.pauses WHERE org_id = $1
	UNION ALL
	SELECT connection_id, 'push', min(updated_at), count(*) || CASE state WHEN 'manual' THEN ' pushes wait to be handed over'
			ELSE ' pushes wait for a decision: ' || why END, ARRAY['starter push list CONNECTION --state ' || state]
	FROM push.outbox WHERE org_id = $1 AND state IN ('review', 'manual') GROUP BY connection_id, state, why
	UNION ALL
	SELECT c.connection_id, 'halted', h.since, h.what || ' are halted by ' || h.actor || CASE WHEN h.reason = '' THEN '' ELSE ': ' || h.reason END,
		ARRAY['starter unhalt ' || h.what || CASE WHEN h.connection_id IS NULL THEN ' --org ' || o.name ELSE ' --connection CONNECTION' END]
	FROM sync.halts h JOIN directory.orgs o ON o.org_id = h.org_id
	JOIN sync.connections c ON c.org_id = h.org_id AND (h.connection_id IS NULL OR h.connection_id = c.connection_id) AND c.removed_at IS NULL
	WHERE h.org_id = $1 AND h.lifted_at IS NULL
	UNION ALL
	SELECT c.connection_id, 'behind', run.last, 'no sync has come through since then, though one is due every ' || c.sync_interval,
		ARRAY['starter status CONNECTION', 'starter sync CONNECTION']
	FROM sync.connections c CROSS JOIN LATERAL (
		SELECT coalesce(max(r.finished_at), c.updated_at) AS last FROM sync.runs r
		WHERE r.org_id = c.org_id AND r.connection_id = c.connection_id AND r.kind = 'incremental' AND r.outcome = 'complete') run
	WHERE c.org_id = $1 AND c.phase = 'live' AND c.removed_at IS NULL AND c.sync_interval IS NOT NULL
		AND run.last < now() - greatest(4 * c.sync_interval, interval '5 minutes')`

// Attention lists what waits for a person in the org, oldest first.
func (tx *Tx) Attention(ctx context.Context) ([]Waiting, error) {
	rows, err := tx.tx.Query(ctx, `SELECT connection_id, what, since, why, commands FROM (`+waitingSQL+`) waiting ORDER BY since`, tx.org)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Waiting])
}

// RefreshAttention sets the directory's flag of a connection to whether anything of it waits for a person. It can't tell
// of what time alone brings about, such as a sync that doesn't come: who wants to know that enters the org.
func (tx *Tx) RefreshAttention(ctx context.Context, id cura.ConnectionID) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE directory.connections SET attention = EXISTS (SELECT FROM (`+waitingSQL+`) waiting WHERE waiting.connection_id = $2)
		WHERE org_id = $1 AND connection_id = $2`, tx.org, id)
	return err
}
