package store

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// ReopenReview asks once more what was decided about the version of a patient that is still the hospital's last: as a split, where
// the decision said whose the patient is, so that they can be moved back. It gives the review that is open then; it is audited.
// Faults: NotFound for a review that the org doesn't have; Conflict for one that isn't applied, or about a version that isn't
// the last; Config for a decision that can't be taken back, since what was shown before is gone.
func (tx *Tx) ReopenReview(ctx context.Context, id, actor string) (Review, error) {
	const op = "asking again"
	r, err := tx.review(ctx, op, id, "FOR UPDATE")
	if err != nil {
		return r, err
	}
	switch {
	case r.State != ReviewApplied:
		return r, fault.New(op, fault.Conflict, "its decision hasn't been applied: it is "+string(r.State)).WithFix("See it with: starter reviews show " + r.ID)
	case r.Decision == cura.KeepEHR:
		return r, fault.New(op, fault.Config, "the hospital's version is shown, and what Cura had before is no longer there to be chosen").
			WithFix("Change the profile: starter profile set")
	}
	var last, open bool
	var profile, from string
	err = tx.tx.QueryRow(ctx, `
		SELECT h.content_hash = r.content_hash, coalesce(l.profile_id::text, ''), coalesce(l.moved_from::text, ''), EXISTS (
			SELECT FROM sync.reviews o WHERE o.org_id = $1 AND o.connection_id = r.connection_id AND o.resource_type = r.resource_type
				AND o.ehr_id = r.ehr_id AND o.closed_at IS NULL)
		FROM sync.reviews r
		JOIN sync.resources h ON h.org_id = $1 AND h.connection_id = r.connection_id AND h.resource_type = r.resource_type AND h.ehr_id = r.ehr_id
		LEFT JOIN sync.patient_links l ON l.org_id = $1 AND l.connection_id = r.connection_id AND l.ehr_id = r.ehr_id
		WHERE r.org_id = $1 AND r.review_id = $2`, tx.org, r.ID).Scan(&last, &profile, &from, &open)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return r, err
	}
	if !last || open {
		return r, fault.New(op, fault.Conflict, "the hospital has sent another version of the patient since, or it is asked again already").
			WithFix("See what is open with: starter reviews list")
	}
	kind, candidates := r.Kind, texts(r.Candidates)
	if kind != cura.ReviewConflict {
		kind, candidates = cura.ReviewSplit, []string{profile}
		if from != "" && from != profile {
			candidates = []string{from, profile}
		}
	}
	again := uuid.NewString()
	_, err = tx.tx.Exec(ctx, `
		INSERT INTO sync.reviews (org_id, review_id, connection_id, resource_type, ehr_id, landing_id, kind, reason, candidates, content_hash)
		SELECT org_id, $3, connection_id, resource_type, ehr_id, landing_id, $4, 'somebody asks again what was decided', $5, content_hash
		FROM sync.reviews WHERE org_id = $1 AND review_id = $2`, tx.org, r.ID, again, kind, candidates)
	if err != nil {
		return r, err
	}
	tx.Audit(audit.Record{
		Kind: audit.ReviewOpened, Actor: actor, Connection: r.Connection, Outcome: audit.Success,
		Details: map[string]any{"review": again, "kind": kind, "again": r.ID, "asserted": true},
	})
	if err := tx.RefreshAttention(ctx, r.Connection); err != nil {
		return r, err
	}
	return tx.review(ctx, op, again, "")
}
