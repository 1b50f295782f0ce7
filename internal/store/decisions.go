package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Decided is what a person has decided about a version of a patient.
type Decided struct {
	Review   string
	Kind     cura.ReviewKind
	Decision cura.ReviewDecision
	// Chosen is the profile that was decided for by link or merge; empty otherwise.
	Chosen cura.ProfileID
	By     string
	// Hash is of the version; the decision holds for no other.
	Hash []byte
	// Applied: it has taken effect before.
	Applied bool
}

// Decided reads the last decision of each kind about each version of the patients named by EHR ids.
func (tx *Tx) Decided(ctx context.Context, connection cura.ConnectionID, ids []string) (map[string][]Decided, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT p.ehr_id, r.* FROM unnest($3::text[]) AS p (ehr_id), LATERAL (
			SELECT DISTINCT ON (r.kind, r.content_hash)
				r.review_id::text, r.kind, r.decision, coalesce(r.chosen::text, ''), r.decided_by, r.content_hash, r.applied_at IS NOT NULL
			FROM sync.reviews r
			WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = 'Patient' AND r.ehr_id = p.ehr_id AND r.decided_at IS NOT NULL
			ORDER BY r.kind, r.content_hash, r.decided_at DESC) AS r`, tx.org, connection, ids)
	if err != nil {
		return nil, err
	}
	found := map[string][]Decided{}
	var id string
	var d Decided
	_, err = pgx.ForEachRow(rows, []any{&id, &d.Review, &d.Kind, &d.Decision, &d.Chosen, &d.By, &d.Hash, &d.Applied}, func() error {
		found[id] = append(found[id], d)
		d.Hash = nil
		return nil
	})
	return found, err
}
