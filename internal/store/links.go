package store

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
)

// LinkState is how far a patient of a connection has come: linked to a profile, waiting for a person, or neither.
type LinkState struct {
	Profile  cura.ProfileID
	InReview bool
	// ReplacedBy is the EHR id of the patient into whom the EHR has merged this one, once Cura has followed; empty: none.
	ReplacedBy string
	// MovedFrom is the profile that the patient belonged to before the link was moved; empty: it never was.
	MovedFrom cura.ProfileID
}

// Patients reads the link states of the patients named by EHR ids; a patient that isn't there has none.
func (tx *Tx) Patients(ctx context.Context, connection cura.ConnectionID, ids []string) (map[string]LinkState, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT p.ehr_id, coalesce(l.profile_id::text, ''), coalesce(r.outcome = 'in_review', false), coalesce(l.replaced_by, ''),
			coalesce(l.moved_from::text, '')
		FROM unnest($3::text[]) AS p (ehr_id)
		LEFT JOIN LATERAL (SELECT l.profile_id, l.replaced_by, l.moved_from FROM sync.patient_links l
			WHERE l.org_id = $1 AND l.connection_id = $2 AND l.ehr_id = p.ehr_id LIMIT 1) AS l ON true
		LEFT JOIN LATERAL (SELECT r.ehr_id, r.outcome FROM sync.resources r
			WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = 'Patient' AND r.ehr_id = p.ehr_id LIMIT 1) AS r ON true
		WHERE l.profile_id IS NOT NULL OR r.ehr_id IS NOT NULL`, tx.org, connection, ids)
	if err != nil {
		return nil, err
	}
	states := make(map[string]LinkState, len(ids))
	var id string
	var s LinkState
	_, err = pgx.ForEachRow(rows, []any{&id, &s.Profile, &s.InReview, &s.ReplacedBy, &s.MovedFrom}, func() error {
		states[id] = s
		return nil
	})
	return states, err
}

// Candidates finds the profiles of the org that carry one of values in system, by value. With cura-id the value may be
// a profile's own id. A profile that has been merged into another isn't found.
func (tx *Tx) Candidates(ctx context.Context, connection cura.ConnectionID, strategy cura.MatchStrategy, values []string) (map[string][]match.Candidate, error) {
	var ids []string
	for _, value := range values {
		// Only as Cura writes it: an identifier is an exact value.
		if id, err := uuid.Parse(value); err == nil && id.String() == value && strategy.By == cura.MatchCuraID {
			ids = append(ids, value)
		}
	}
	rows, err := tx.tx.Query(ctx, `
		WITH found AS (
			SELECT i.value, i.profile_id FROM unnest($4::text[]) AS v (value), LATERAL (
				SELECT i.value, i.profile_id FROM cura.profile_identifiers i
				WHERE i.org_id = $1 AND i.system = $3 AND i.value = v.value OFFSET 0) AS i
			UNION
			SELECT i.id::text, i.id FROM unnest($5::uuid[]) AS i (id), LATERAL (
				SELECT FROM cura.profiles p WHERE p.org_id = $1 AND p.profile_id = i.id LIMIT 1) AS p
		)
		SELECT f.value, p.profile_id, p.birth_date, p.family, p.given,
			ARRAY(SELECT n->>'family' FROM json_array_elements(p.record->'other_names') n WHERE n->>'family' <> ''),
			coalesce((SELECT l.ehr_id FROM sync.patient_links l
				WHERE l.org_id = $1 AND l.connection_id = $2 AND l.profile_id = p.profile_id AND l.replaced_by = '' ORDER BY l.ehr_id LIMIT 1), '')
		FROM found f JOIN cura.profiles p ON p.org_id = $1 AND p.profile_id = f.profile_id AND p.merged_into IS NULL
		ORDER BY p.profile_id`, tx.org, connection, strategy.System, values, ids)
	if err != nil {
		return nil, err
	}
	found := map[string][]match.Candidate{}
	var value string
	var c match.Candidate
	_, err = pgx.ForEachRow(rows, []any{&value, &c.Profile, &c.BirthDate, &c.Family, &c.Given, &c.OtherFamilies, &c.TakenBy},
		func() error {
			found[value] = append(found[value], c)
			return nil
		})
	return found, err
}

// Shown tells which version a profile shows.
type Shown struct {
	// Connection and EHRID are whose it is, Landing is its row and LastUpdated its time.
	Connection  cura.ConnectionID
	EHRID       string
	Landing     int64
	LastUpdated *time.Time
	// Live: that patient is still linked to the profile, and hasn't been merged into another.
	Live bool
	// ChangedAt is when Cura itself changed what is shown, after that version; nil: it didn't.
	ChangedAt *time.Time
	// MergedInto is the profile that the last of its patients was moved to; empty: it has patients of its own.
	MergedInto cura.ProfileID
}

// Same reports whether two are the same, so that what was decided by the one holds for the other.
func (s Shown) Same(t Shown) bool {
	if s.Landing != t.Landing || s.MergedInto != t.MergedInto || s.ChangedAt == nil || t.ChangedAt == nil {
		return s.Landing == t.Landing && s.MergedInto == t.MergedInto && s.ChangedAt == nil && t.ChangedAt == nil
	}
	return s.ChangedAt.Equal(*t.ChangedAt)
}

// Shown reads what profiles show; one that isn't there isn't in the answer.
func (tx *Tx) Shown(ctx context.Context, profiles []cura.ProfileID) (map[cura.ProfileID]Shown, error) {
	return tx.shown(ctx, profiles, "")
}

func (tx *Tx) shown(ctx context.Context, profiles []cura.ProfileID, lock string) (map[cura.ProfileID]Shown, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT p.profile_id, p.connection_id, p.ehr_id, p.landing_id, p.last_updated, p.changed_at, EXISTS (
			SELECT FROM sync.patient_links l WHERE l.org_id = $1 AND l.connection_id = p.connection_id AND l.ehr_id = p.ehr_id
				AND l.profile_id = p.profile_id AND l.replaced_by = ''), coalesce(p.merged_into::text, '')
		FROM cura.profiles p WHERE p.org_id = $1 AND p.profile_id = ANY($2::uuid[]) ORDER BY p.profile_id `+lock, tx.org, texts(profiles))
	if err != nil {
		return nil, err
	}
	found := make(map[cura.ProfileID]Shown, len(profiles))
	var id cura.ProfileID
	var s Shown
	_, err = pgx.ForEachRow(rows, []any{&id, &s.Connection, &s.EHRID, &s.Landing, &s.LastUpdated, &s.ChangedAt, &s.Live, &s.MergedInto}, func() error {
		found[id] = s
		return nil
	})
	return found, err
}

// ErrSettledMeanwhile says that what the items were decided by has changed since: a profile was made for one of the page's new
// patients, a link has moved, or Cura has changed a profile. Decide them again.
var ErrSettledMeanwhile = errors.New("what the page was decided by has changed")

// holdDecisions makes sure that what the items were decided by still holds, and keeps it so until the transaction ends: that
// their patients have the links that they had, that their profiles show what they showed, and that no profile carries an
// identifier of the new ones.
func (tx *Tx) holdDecisions(ctx context.Context, pass Pass, items []Item) error {
	if err := tx.stillLinked(ctx, pass, items); err != nil {
		return err
	}
	if err := tx.stillShown(ctx, items); err != nil {
		return err
	}
	return tx.stillNew(ctx, items)
}

// stillLinked compares links. Pages share the lock that whoever moves a link has alone: what a page writes is there when the
// records of a link are moved, or is written to where it leads then.
func (tx *Tx) stillLinked(ctx context.Context, pass Pass, items []Item) error {
	links := map[string]cura.ProfileID{}
	moves := false
	for _, it := range items {
		switch {
		case it.Outcome != Stored:
		case it.Move != nil:
			moves = true
			links[it.EHRID] = it.Move.From
		case it.MatchedBy != "":
			links[it.EHRID] = ""
		default:
			links[it.Record.PatientEHRID] = it.Profile
		}
	}
	for _, it := range items {
		if _, ofPage := links[it.ReplacedBy]; it.Outcome == Stored && it.ReplacedBy != "" && !ofPage {
			links[it.ReplacedBy] = it.Profile // that the survivor is where the patient joins them
		}
	}
	if len(links) == 0 {
		return nil
	}
	ids, profiles := make([]string, 0, len(links)), make([]*string, 0, len(links))
	for id, profile := range links {
		var linked *string // null: not yet
		if profile != "" {
			text := string(profile)
			linked = &text
		}
		ids, profiles = append(ids, id), append(profiles, linked)
	}
	share := "_shared"
	if moves {
		share = ""
	}
	var batch pgx.Batch
	batch.Queue(`SELECT pg_advisory_xact_lock`+share+`(hashtextextended('links ' || $1, 0))`, string(pass.Connection))
	changed := false
	batch.Queue(`
		SELECT EXISTS (SELECT FROM unnest($3::text[], $4::uuid[]) AS p (ehr_id, profile_id) LEFT JOIN LATERAL (
			SELECT l.profile_id FROM sync.patient_links l
			WHERE l.org_id = $1 AND l.connection_id = $2 AND l.ehr_id = p.ehr_id LIMIT 1) AS l ON true
			WHERE l.profile_id IS DISTINCT FROM p.profile_id)`, tx.org, pass.Connection, ids, profiles).QueryRow(func(row pgx.Row) error {
		return row.Scan(&changed)
	})
	if err := tx.tx.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	if changed {
		return ErrSettledMeanwhile
	}
	return nil
}

// stillShown compares what profiles show, and locks them: whoever changes one waits, and changes what the page has written.
func (tx *Tx) stillShown(ctx context.Context, items []Item) error {
	var profiles []cura.ProfileID
	for _, it := range items {
		if it.Outcome == Stored && it.Shown != nil {
			profiles = append(profiles, it.Profile)
		}
	}
	if len(profiles) == 0 {
		return nil
	}
	now, err := tx.shown(ctx, profiles, "FOR NO KEY UPDATE OF p")
	if err != nil {
		return err
	}
	for _, it := range items {
		if it.Outcome == Stored && it.Shown != nil && !it.Shown.Same(now[it.Profile]) {
			return ErrSettledMeanwhile
		}
	}
	return nil
}

// stillNew makes sure that no profile carries an identifier of the page's new patients. Only one transaction of an org at
// a time may make profiles: otherwise two connections that serve the same person at once would make two.
func (tx *Tx) stillNew(ctx context.Context, items []Item) error {
	var systems, keys []string
	for _, it := range items {
		for _, system := range it.MatchSystems {
			for _, key := range it.MatchKeys {
				systems, keys = append(systems, system), append(keys, key)
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if _, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('profiles ' || $1, 0))`, string(tx.org)); err != nil {
		return err
	}
	var taken bool
	err := tx.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS k (system, value), LATERAL (
			SELECT FROM cura.profile_identifiers i JOIN cura.profiles p ON p.org_id = $1 AND p.profile_id = i.profile_id AND p.merged_into IS NULL
			WHERE i.org_id = $1 AND i.system = k.system AND i.value = k.value LIMIT 1) AS i)`,
		tx.org, systems, keys).Scan(&taken)
	if err == nil && taken {
		return ErrSettledMeanwhile
	}
	return err
}
