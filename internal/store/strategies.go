package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// PutStrategies keeps how types of a connection are read. What was kept of others stays, as long as the connection pulls
// them: a test that met trouble says nothing of them.
func (tx *Tx) PutStrategies(ctx context.Context, id cura.ConnectionID, choices []cura.StrategyChoice) error {
	var batch pgx.Batch
	batch.Queue(`
		DELETE FROM sync.strategies s USING sync.connections c
		WHERE s.org_id = $1 AND s.connection_id = $2 AND c.org_id = $1 AND c.connection_id = $2 AND NOT s.resource_type = ANY(c.types)`, tx.org, id)
	for _, c := range choices {
		if c.NotOffered == nil {
			c.NotOffered = []string{}
		}
		batch.Queue(`
			INSERT INTO sync.strategies (org_id, connection_id, resource_type, strategy, chosen_by, reason, can_miss, not_offered)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (org_id, connection_id, resource_type) DO UPDATE SET strategy = excluded.strategy, chosen_by = excluded.chosen_by,
				reason = excluded.reason, can_miss = excluded.can_miss, not_offered = excluded.not_offered, updated_at = now()`, tx.org, id, c.Type, c.Strategy, c.ChosenBy, c.Reason, c.CanMiss, c.NotOffered)
	}
	return tx.tx.SendBatch(ctx, &batch).Close()
}

// Strategies lists how the types of a connection are read, in the order of their names; none before its first endpoint
// test.
func (tx *Tx) Strategies(ctx context.Context, id cura.ConnectionID) ([]cura.StrategyChoice, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT resource_type, strategy, chosen_by, reason, can_miss, not_offered FROM sync.strategies
		WHERE org_id = $1 AND connection_id = $2 ORDER BY resource_type`, tx.org, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[cura.StrategyChoice])
}

// NotOffered remembers that the server refuses a category of a type.
func (tx *Tx) NotOffered(ctx context.Context, id cura.ConnectionID, t cura.ResourceType, category string) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE sync.strategies SET not_offered = array_append(not_offered, $4), updated_at = now()
		WHERE org_id = $1 AND connection_id = $2 AND resource_type = $3 AND NOT $4 = ANY(not_offered)`, tx.org, id, t, category)
	return err
}
