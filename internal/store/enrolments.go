package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
)

// EnrolmentState is how far an enrolment has come.
type EnrolmentState string

// The states.
const (
	// EnrolmentPending: the EHR hasn't been asked, or its answer was of no use.
	EnrolmentPending EnrolmentState = "pending"
	// EnrolmentFound: exactly one patient of the EHR is this person, who is a member now.
	EnrolmentFound EnrolmentState = "found"
	// EnrolmentNotFound: no patient of the EHR is this person. It is asked again after a day.
	EnrolmentNotFound EnrolmentState = "not-found"
	// EnrolmentAmbiguous: a person must decide.
	EnrolmentAmbiguous EnrolmentState = "ambiguous"
)

// Enrolment is a person whom Cura asks the EHR for, by the connection's match identifier. It is shown without who it is.
type Enrolment struct {
	ID string `json:"enrolment_id"`
	// Value is the identifier's value; with Family, Given, BirthDate (YYYY, YYYY-MM or YYYY-MM-DD) and Gender it is PHI.
	Value     string `json:"-"`
	Family    string `json:"-"`
	Given     string `json:"-"`
	BirthDate string `json:"-"`
	Gender    string `json:"-"`
	// Profile is the Cura profile that it came from; empty: it came from a file.
	Profile cura.ProfileID `json:"-"`
	// Line is its line in that file.
	Line  int            `json:"line,omitempty"`
	State EnrolmentState `json:"state"`
	// Reason is why it is in its state, in words without PHI.
	Reason  string     `json:"reason,omitempty"`
	AskedAt *time.Time `json:"asked_at,omitempty"`
}

// EnrolCounts say what became of enrolments that were stored.
type EnrolCounts struct {
	// Added are new, Again were there without a member and are asked for once more, by what is known of them now.
	Added int `json:"added"`
	Again int `json:"again"`
	// Known are members already.
	Known int `json:"known"`
}

// Enrol stores enrolments; no two may have the same Value. One whose person is a member stays as it is.
func (tx *Tx) Enrol(ctx context.Context, connection cura.ConnectionID, enrolments []Enrolment, actor string) (EnrolCounts, error) {
	n := len(enrolments)
	ids, values, families, givens := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	births, genders, profiles, lines := make([]string, n), make([]string, n), make([]string, n), make([]int, n)
	for i, e := range enrolments {
		ids[i], values[i], families[i], givens[i] = uuid.NewString(), e.Value, e.Family, e.Given
		births[i], genders[i], profiles[i], lines[i] = e.BirthDate, e.Gender, string(e.Profile), e.Line
	}
	rows, err := tx.tx.Query(ctx, `
		INSERT INTO sync.enrolments AS e (org_id, connection_id, enrolment_id, value, family, given, birth_date, gender, profile_id, line)
		SELECT $1, $2, g.id, g.value, g.family, g.given, g.birth, g.gender, nullif(g.profile, '')::uuid, g.line
		FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::integer[])
			AS g (id, value, family, given, birth, gender, profile, line)
		ORDER BY g.value
		ON CONFLICT (org_id, connection_id, value) DO UPDATE
			SET family = excluded.family, given = excluded.given, birth_date = excluded.birth_date, gender = excluded.gender,
				profile_id = excluded.profile_id, line = excluded.line, state = 'pending', member_id = NULL, reason = '', asked_at = NULL
			WHERE e.state <> 'found' OR NOT EXISTS (
				SELECT FROM sync.roster r
				WHERE r.org_id = $1 AND r.connection_id = $2 AND r.member_id = e.member_id AND r.removed_at IS NULL)
		RETURNING xmax = 0`, tx.org, connection, ids, values, families, givens, births, genders, profiles, lines)
	if err != nil {
		return EnrolCounts{}, err
	}
	var counts EnrolCounts
	var isNew bool
	if _, err := pgx.ForEachRow(rows, []any{&isNew}, func() error {
		if isNew {
			counts.Added++
		} else {
			counts.Again++
		}
		return nil
	}); err != nil {
		return EnrolCounts{}, err
	}
	counts.Known = n - counts.Added - counts.Again
	if n > 0 {
		tx.Audit(audit.Record{Kind: audit.EnrolmentsStored, Actor: actor, Connection: connection, Outcome: audit.Success, Details: counts})
	}
	return counts, nil
}

// ProfilesToEnrol gives, as enrolments, at most limit profiles of the org that carry an identifier of the connection's match
// strategy and that the connection neither is linked to nor has asked for. Those that couldn't be told from others, for
// want of a birth date and a family name, aren't among them.
func (tx *Tx) ProfilesToEnrol(ctx context.Context, connection cura.ConnectionID, strategy cura.MatchStrategy, limit int) ([]Enrolment, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT DISTINCT ON (i.value) i.value, p.family, p.given, p.birth_date, p.gender, p.profile_id::text
		FROM (
			SELECT profile_id, value FROM cura.profile_identifiers
			WHERE org_id = $1 AND system = $3 AND value <> '' AND length(system) + length(value) <= $6
			UNION
			SELECT profile_id, profile_id::text FROM cura.profiles WHERE org_id = $1 AND $4
		) i
		JOIN cura.profiles p ON p.org_id = $1 AND p.profile_id = i.profile_id
		WHERE (p.birth_date <> '' OR p.family <> '')
			AND NOT EXISTS (SELECT FROM sync.patient_links l WHERE l.org_id = $1 AND l.connection_id = $2 AND l.profile_id = p.profile_id)
			AND NOT EXISTS (SELECT FROM sync.enrolments e WHERE e.org_id = $1 AND e.connection_id = $2 AND e.value = i.value)
		ORDER BY i.value, p.profile_id LIMIT $5`,
		tx.org, connection, strategy.System, strategy.By == cura.MatchCuraID, limit, match.MaxIdentifier)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Enrolment, error) {
		var e Enrolment
		err := row.Scan(&e.Value, &e.Family, &e.Given, &e.BirthDate, &e.Gender, &e.Profile)
		return e, err
	})
}

// isDue is the condition under which an enrolment is to be asked for now: at once when it is new, soon when the EHR's answer
// was of no use, and daily while nobody is found.
const isDue = `(state = 'pending' AND (asked_at IS NULL OR asked_at < now() - interval '1 minute')
	OR state = 'not-found' AND asked_at < now() - interval '1 day')`

// DueEnrolments lists at most limit enrolments that are to be asked for now, the new ones first.
func (tx *Tx) DueEnrolments(ctx context.Context, connection cura.ConnectionID, limit int) ([]Enrolment, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT enrolment_id::text, value, family, given, birth_date, gender, coalesce(profile_id::text, ''), line, state, reason, asked_at
		FROM sync.enrolments WHERE org_id = $1 AND connection_id = $2 AND `+isDue+`
		ORDER BY asked_at NULLS FIRST, created_at, line, value LIMIT $3`, tx.org, connection, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Enrolment, error) {
		var e Enrolment
		err := row.Scan(&e.ID, &e.Value, &e.Family, &e.Given, &e.BirthDate, &e.Gender, &e.Profile, &e.Line, &e.State, &e.Reason, &e.AskedAt)
		return e, err
	})
}

// CountDue counts the enrolments that are to be asked for now.
func (tx *Tx) CountDue(ctx context.Context, connection cura.ConnectionID) (int, error) {
	var n int
	err := tx.tx.QueryRow(ctx, `
		SELECT count(*) FROM sync.enrolments WHERE org_id = $1 AND connection_id = $2 AND `+isDue, tx.org, connection).Scan(&n)
	return n, err
}

// Settlement is what asking the EHR for an enrolment came to.
type Settlement struct {
	State EnrolmentState
	// Reason says why, in words without PHI.
	Reason string
	// EHRID is the patient of EnrolmentFound. PHI.
	EHRID string
}

// SettleEnrolment records what asking for an enrolment came to. Who was found becomes a member; joined says that they
// weren't one before.
func (tx *Tx) SettleEnrolment(ctx context.Context, connection cura.ConnectionID, id string, s Settlement) (joined bool, err error) {
	var member *string
	if s.State == EnrolmentFound {
		added, _, err := tx.AddMembers(ctx, connection, cura.RosterEnrolment, []string{s.EHRID}, audit.Worker)
		if err != nil {
			return false, err
		}
		joined = added > 0
		if err := tx.tx.QueryRow(ctx, `
			SELECT member_id::text FROM sync.roster WHERE org_id = $1 AND connection_id = $2 AND ehr_id = $3`,
			tx.org, connection, s.EHRID).Scan(&member); err != nil {
			return false, err
		}
	}
	_, err = tx.tx.Exec(ctx, `
		UPDATE sync.enrolments SET state = $4, reason = $5, member_id = $6, asked_at = now()
		WHERE org_id = $1 AND connection_id = $2 AND enrolment_id = $3`, tx.org, connection, id, s.State, s.Reason, member)
	return joined, err
}

// OpenEnrolments lists at most limit enrolments whose person isn't a member, those that a person must look at first.
func (tx *Tx) OpenEnrolments(ctx context.Context, connection cura.ConnectionID, limit int) ([]Enrolment, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT enrolment_id::text, line, state, reason, asked_at FROM sync.enrolments
		WHERE org_id = $1 AND connection_id = $2 AND state <> 'found'
		ORDER BY state, line, created_at, enrolment_id LIMIT $3`, tx.org, connection, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Enrolment, error) {
		var e Enrolment
		err := row.Scan(&e.ID, &e.Line, &e.State, &e.Reason, &e.AskedAt)
		return e, err
	})
}

// enrolAnew asks for everybody again by another identifier system. Those that came from Cura's profiles are dropped: their
// values are of the old system.
func (tx *Tx) enrolAnew(batch *pgx.Batch, connection cura.ConnectionID) {
	batch.Queue(`
		DELETE FROM sync.enrolments
		WHERE org_id = $1 AND connection_id = $2 AND profile_id IS NOT NULL AND state <> 'found'`, tx.org, connection)
	batch.Queue(`
		UPDATE sync.enrolments SET state = 'pending', asked_at = NULL, reason = ''
		WHERE org_id = $1 AND connection_id = $2 AND state <> 'found'`, tx.org, connection)
}
