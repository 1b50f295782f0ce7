package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// ReviewState is how far a review has come.
type ReviewState string

// The states of a review.
const (
	// ReviewOpen: it waits for a person.
	ReviewOpen ReviewState = "open"
	// ReviewWasDecided: a person has decided, and the next reading of the patient applies it.
	ReviewWasDecided ReviewState = "decided"
	// ReviewApplied: the decision has taken effect.
	ReviewApplied ReviewState = "applied"
	// ReviewOvertaken: the hospital has sent another version before anything was decided or applied.
	ReviewOvertaken ReviewState = "overtaken"
)

// Review is what a person is asked about a patient, and what they have decided. It holds no PHI.
type Review struct {
	ID         string            `json:"id"`
	Connection cura.ConnectionID `json:"connection_id"`
	Kind       cura.ReviewKind   `json:"kind"`
	Reason     string            `json:"reason"`
	// Candidates are the profiles that a person chooses from. Of a merge: the one that the patient has and the one that they would
	// get; of a split: the former one and the one that they have; of a conflict: the profile.
	Candidates []cura.ProfileID `json:"candidates"`
	OpenedAt   time.Time        `json:"opened_at"`
	ClosedAt   *time.Time       `json:"closed_at,omitempty"`
	// Decision and what follows are empty until a person has decided.
	Decision cura.ReviewDecision `json:"decision,omitempty"`
	// Chosen is the profile that was decided for by link or merge.
	Chosen    cura.ProfileID `json:"chosen,omitempty"`
	DecidedBy string         `json:"decided_by,omitempty"`
	DecidedAt *time.Time     `json:"decided_at,omitempty"`
	AppliedAt *time.Time     `json:"applied_at,omitempty"`
	State     ReviewState    `json:"state"`
}

// ReviewFilter narrows a list of reviews; what is left zero doesn't.
type ReviewFilter struct {
	Connection cura.ConnectionID
	Kind       cura.ReviewKind
	// Open leaves out what is applied or overtaken.
	Open bool
	// Limit is how many are listed; 0: all.
	Limit int
}

const reviewSQL = `
	SELECT r.review_id, r.connection_id, r.kind, r.reason, r.candidates, r.opened_at, r.closed_at, coalesce(r.decision, ''),
		coalesce(r.chosen::text, ''), r.decided_by, r.decided_at, r.applied_at,
		CASE WHEN r.applied_at IS NOT NULL THEN 'applied' WHEN r.closed_at IS NOT NULL THEN 'overtaken'
			WHEN r.decided_at IS NOT NULL THEN 'decided' ELSE 'open' END
	FROM sync.reviews r WHERE r.org_id = $1 `

// Reviews lists the org's reviews that f leaves, the longest open first.
func (tx *Tx) Reviews(ctx context.Context, f ReviewFilter) ([]Review, error) {
	rows, err := tx.tx.Query(ctx, reviewSQL+`
		AND ($2 = '' OR r.connection_id = nullif($2, '')::uuid) AND ($3 = '' OR r.kind = $3) AND (NOT $4 OR r.closed_at IS NULL)
		ORDER BY r.opened_at, r.review_id LIMIT nullif($5, 0)`, tx.org, string(f.Connection), string(f.Kind), f.Open, f.Limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Review])
}

// ReviewDetails is a review with all that a person looks at. It is PHI.
type ReviewDetails struct {
	Review

	// Raw is the EHR's version that is asked about, as it landed; nil where it was too large to be kept.
	Raw         []byte
	LastUpdated *time.Time
	// Linked is the profile that the patient belongs to; empty: none yet.
	Linked cura.ProfileID
	// Profiles are the one that is linked and the candidates, as Cura shows them, each once, by id. One that is gone isn't there.
	Profiles []ProfileState
}

// Profile finds one of the profiles by its id; nil: it isn't there.
func (d ReviewDetails) Profile(id cura.ProfileID) *ProfileState {
	i := slices.IndexFunc(d.Profiles, func(p ProfileState) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return &d.Profiles[i]
}

// Review reads a review whole. Fault NotFound: the org has none of that id.
func (tx *Tx) Review(ctx context.Context, id string) (ReviewDetails, error) {
	r, err := tx.review(ctx, "looking for the review", id, "")
	if err != nil {
		return ReviewDetails{}, err
	}
	d := ReviewDetails{Review: r}
	var raw []byte
	err = tx.tx.QueryRow(ctx, `
		SELECT l.raw, l.last_updated, coalesce(p.profile_id::text, '')
		FROM sync.reviews r JOIN sync.landing l ON l.org_id = $1 AND l.landing_id = r.landing_id
		LEFT JOIN sync.patient_links p ON p.org_id = $1 AND p.connection_id = r.connection_id AND p.ehr_id = r.ehr_id
		WHERE r.org_id = $1 AND r.review_id = $2`, tx.org, r.ID).Scan(&raw, &d.LastUpdated, &d.Linked)
	if err != nil {
		return d, err
	}
	if raw != nil {
		if d.Raw, err = tx.store.decoder.DecodeAll(raw, nil); err != nil {
			return d, err
		}
	}
	d.Profiles, err = tx.ProfileStates(ctx, append(slices.Clone(r.Candidates), d.Linked))
	return d, err
}

// review reads a review, with a lock where one is named.
func (tx *Tx) review(ctx context.Context, op, id, lock string) (Review, error) {
	unknown := fault.New(op, fault.NotFound, "there is no such review").WithFix("List them with: starter reviews list --all")
	parsed, err := uuid.Parse(id)
	if err != nil {
		return Review{}, unknown
	}
	rows, err := tx.tx.Query(ctx, reviewSQL+"AND r.review_id = $2 "+lock, tx.org, parsed.String())
	if err != nil {
		return Review{}, err
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Review])
	if errors.Is(err, pgx.ErrNoRows) {
		return r, unknown
	}
	return r, err
}

// ViewReview leaves a record that somebody looks at the patient data of a review.
func (tx *Tx) ViewReview(r Review, actor string) {
	tx.Audit(audit.Record{
		Kind: audit.ReviewViewed, Actor: actor, Connection: r.Connection, Outcome: audit.Success,
		Details: map[string]any{"review": r.ID, "kind": r.Kind, "asserted": true},
	})
}

// ReviewChoice is what a person decides.
type ReviewChoice struct {
	Decision cura.ReviewDecision
	// Profile goes with link alone.
	Profile cura.ProfileID
	// MergedInto are the EHR ids of the patients by whom the version under review says that this one was replaced: with them alone
	// may a patient share a profile.
	MergedInto []string
}

// decidingReview is the operation that the faults of DecideReview name.
const decidingReview = "deciding the review"

// DecideReview writes down what a person decides, once; it is audited. The review stays open until a reading of the patient
// applies it. Faults: NotFound for a review or a profile that the org doesn't have; Conflict for a review that is decided
// already or about a version that the hospital has replaced, and for a profile that has been merged into another or belongs to
// another patient of the connection; Config for a decision that doesn't fit the review.
func (tx *Tx) DecideReview(ctx context.Context, id string, choice ReviewChoice, actor string) (Review, error) {
	r, err := tx.review(ctx, decidingReview, id, "FOR UPDATE")
	if err != nil {
		return r, err
	}
	if err := tx.undecided(ctx, r); err != nil {
		return r, err
	}
	if r.Chosen, err = tx.choose(ctx, r, choice); err != nil {
		return r, err
	}
	tx.Audit(audit.Record{
		Kind: audit.ReviewDecided, Actor: actor, Connection: r.Connection, Outcome: audit.Success,
		Details: map[string]any{"review": r.ID, "kind": r.Kind, "decision": choice.Decision, "asserted": true},
	})
	_, err = tx.tx.Exec(ctx, `
		UPDATE sync.reviews SET decision = $3, chosen = nullif($4, '')::uuid, decided_by = $5, decided_at = clock_timestamp()
		WHERE org_id = $1 AND review_id = $2`, tx.org, r.ID, choice.Decision, string(r.Chosen), actor)
	if err != nil {
		return r, err
	}
	if err := tx.RefreshAttention(ctx, r.Connection); err != nil {
		return r, err
	}
	return tx.review(ctx, decidingReview, r.ID, "")
}

// undecided fails for a review that nobody has to decide any more.
func (tx *Tx) undecided(ctx context.Context, r Review) error {
	if r.DecidedAt != nil {
		return fault.Newf(decidingReview, fault.Conflict, "already decided by %s at %s: %s", r.DecidedBy, r.DecidedAt.UTC().Format(time.RFC3339), r.Decision).
			WithFix("See what came of it with: starter reviews show " + r.ID)
	}
	if r.ClosedAt == nil {
		return nil
	}
	var newer string
	err := tx.tx.QueryRow(ctx, `
		SELECT n.review_id::text FROM sync.reviews r JOIN sync.reviews n
			ON n.org_id = $1 AND n.connection_id = r.connection_id AND n.resource_type = r.resource_type AND n.ehr_id = r.ehr_id
		WHERE r.org_id = $1 AND r.review_id = $2 AND n.review_id <> r.review_id AND n.closed_at IS NULL`, tx.org, r.ID).Scan(&newer)
	overtaken := fault.New(decidingReview, fault.Conflict, "the hospital has sent another version of the patient since")
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return overtaken.WithFix("That one needed nobody: there is nothing to decide any more")
	case err != nil:
		return err
	}
	return overtaken.WithFix("Decide about that one: starter reviews show " + newer)
}

// choose checks a decision, and gives the profile that it is for; empty where it is for none in particular.
func (tx *Tx) choose(ctx context.Context, r Review, c ReviewChoice) (cura.ProfileID, error) {
	fitting := r.Kind.Decisions()
	switch {
	case !slices.Contains(fitting, c.Decision):
		names := make([]string, len(fitting))
		for i, d := range fitting {
			names[i] = string(d)
		}
		return "", fault.Newf(decidingReview, fault.Config, "a review of kind %s can't be decided by %s", r.Kind, c.Decision).
			WithFix("What fits is: " + strings.Join(names, ", ") + "; see: starter reviews show " + r.ID)
	case c.Decision == cura.DecideLink && c.Profile == "":
		return "", fault.New(decidingReview, fault.Config, "no profile is named to link the patient to").
			WithFix("Name one: starter reviews resolve " + r.ID + " --link PROFILE")
	case c.Decision != cura.DecideLink && c.Profile != "":
		return "", fault.Newf(decidingReview, fault.Config, "a profile is named with link, not with %s", c.Decision)
	case c.Decision == cura.DecideLink:
		return tx.chooseLink(ctx, r, c)
	case c.Decision == cura.DecideMerge:
		if len(r.Candidates) < 2 {
			return "", fault.New(decidingReview, fault.Conflict, "it isn't known whose record the patient was merged into").
				WithFix("Wait until the hospital has sent that patient; the review is asked again then")
		}
		return tx.survivor(ctx, r.Candidates[1])
	}
	return "", nil
}

// chooseLink checks that a patient can be linked to a profile.
func (tx *Tx) chooseLink(ctx context.Context, r Review, c ReviewChoice) (cura.ProfileID, error) {
	p, err := tx.ProfileState(ctx, c.Profile)
	if err != nil {
		return "", err
	}
	// A patient who was split off goes back to where they were, though nobody is left there.
	back := r.Kind == cura.ReviewSplit && len(r.Candidates) > 1 && p.ID == r.Candidates[0]
	if p.MergedInto != "" && !back {
		return "", fault.Newf(decidingReview, fault.Conflict, "profile %s has been merged into %s", p.ID, p.MergedInto).
			WithFix("Link the patient to that one, if it is theirs")
	}
	var taken bool
	err = tx.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM sync.reviews r JOIN sync.patient_links l
				ON l.org_id = $1 AND l.connection_id = r.connection_id AND l.ehr_id <> r.ehr_id AND l.profile_id = $3 AND l.replaced_by = ''
			WHERE r.org_id = $1 AND r.review_id = $2 AND l.ehr_id <> ALL (coalesce($4::text[], '{}')))`, tx.org, r.ID, p.ID, c.MergedInto).Scan(&taken)
	if err != nil {
		return "", err
	}
	if taken {
		return "", fault.Newf(decidingReview, fault.Conflict, "another patient of this connection is linked to profile %s", p.ID).
			WithFix("Where the two are one person, have the hospital merge them; else decide for another profile, or for a new one")
	}
	return p.ID, nil
}

// survivor follows merges from a profile to the one that its patients are at now.
func (tx *Tx) survivor(ctx context.Context, id cura.ProfileID) (cura.ProfileID, error) {
	for seen := map[cura.ProfileID]bool{}; !seen[id]; {
		seen[id] = true
		p, err := tx.ProfileState(ctx, id)
		if err != nil {
			return "", err
		}
		if p.MergedInto == "" {
			return p.ID, nil
		}
		id = p.MergedInto
	}
	return "", fault.New(decidingReview, fault.Conflict, "the profile that the patient would be merged into has been merged itself").
		WithFix("Leave it as it is (--keep cura), and have the hospital look at its merges")
}
