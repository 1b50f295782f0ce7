package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Member is a patient whom a connection reads.
type Member struct {
	// ID is Cura's own id of the member, a UUID: it may appear anywhere.
	ID string
	// EHRID is the id of the Patient resource. PHI.
	EHRID string
	// Source is what brought the member; empty for a patient of a connection that reads without a roster.
	Source  cura.RosterSource
	AddedAt time.Time
}

func scanMember(row pgx.CollectableRow) (Member, error) {
	var m Member
	err := row.Scan(&m.ID, &m.EHRID, &m.Source, &m.AddedAt)
	return m, err
}

// Members lists the active members of a connection's roster in the order of their ids, at most limit of those whose id
// comes after after; empty: from the first.
func (tx *Tx) Members(ctx context.Context, connection cura.ConnectionID, after string, limit int) ([]Member, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT member_id::text, ehr_id, source, added_at FROM sync.roster
		WHERE org_id = $1 AND connection_id = $2 AND removed_at IS NULL AND ($3 = '' OR member_id > nullif($3, '')::uuid)
		ORDER BY member_id LIMIT $4`, tx.org, connection, after, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanMember)
}

// Member reads an active member by its id. For a patient who isn't on the roster, id may be that of the patient's link.
// Fault NotFound: there is none, or they have been removed.
func (tx *Tx) Member(ctx context.Context, connection cura.ConnectionID, id string) (Member, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT member_id::text, ehr_id, source, added_at FROM sync.roster
		WHERE org_id = $1 AND connection_id = $2 AND member_id = $3::uuid AND removed_at IS NULL
		UNION ALL
		SELECT link_id::text, ehr_id, '', created_at FROM sync.patient_links l
		WHERE org_id = $1 AND connection_id = $2 AND link_id = $3::uuid AND NOT EXISTS (
			SELECT FROM sync.roster r WHERE r.org_id = $1 AND r.connection_id = $2 AND r.ehr_id = l.ehr_id)`, tx.org, connection, id)
	if err != nil {
		return Member{}, err
	}
	m, err := pgx.CollectExactlyOneRow(rows, scanMember)
	if errors.Is(err, pgx.ErrNoRows) {
		return Member{}, fault.Newf("looking for the patient", fault.NotFound, "the connection reads no patient %s", id).
			WithFix("See whom it reads with: starter roster show CONNECTION")
	}
	return m, err
}

// MembersByEHRID finds active members by the ids that the EHR gave the patients, and where a patient isn't on the roster, the
// patient's link. Whom the connection doesn't read isn't in the answer.
func (tx *Tx) MembersByEHRID(ctx context.Context, connection cura.ConnectionID, ehrIDs []string) (map[string]Member, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT member_id::text, ehr_id, source, added_at FROM sync.roster
		WHERE org_id = $1 AND connection_id = $2 AND ehr_id = ANY($3) AND removed_at IS NULL
		UNION ALL
		SELECT link_id::text, ehr_id, '', created_at FROM sync.patient_links l
		WHERE org_id = $1 AND connection_id = $2 AND ehr_id = ANY($3) AND NOT EXISTS (
			SELECT FROM sync.roster r WHERE r.org_id = $1 AND r.connection_id = $2 AND r.ehr_id = l.ehr_id)`, tx.org, connection, ehrIDs)
	if err != nil {
		return nil, err
	}
	members, err := pgx.CollectRows(rows, scanMember)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]Member, len(members))
	for _, m := range members {
		byID[m.EHRID] = m
	}
	return byID, nil
}

// CountMembers counts the active members.
func (tx *Tx) CountMembers(ctx context.Context, connection cura.ConnectionID) (int, error) {
	var n int
	err := tx.tx.QueryRow(ctx, `
		SELECT count(*) FROM sync.roster WHERE org_id = $1 AND connection_id = $2 AND removed_at IS NULL`, tx.org, connection).Scan(&n)
	return n, err
}

// AddMembers puts patients on the roster and says how many are new and how many were on it already. Who was removed comes
// back as a new member: read whole again. Who is there because of a Group and is named by a list or an enrolment stays
// when they leave the Group.
func (tx *Tx) AddMembers(ctx context.Context, connection cura.ConnectionID, source cura.RosterSource, ehrIDs []string, actor string) (added, known int, err error) {
	added, known, err = tx.addMembers(ctx, connection, source, ehrIDs)
	if err != nil {
		return 0, 0, err
	}
	tx.auditRoster(connection, source, added, 0, actor)
	return added, known, nil
}

// auditRoster leaves a record of a change, in counts.
func (tx *Tx) auditRoster(connection cura.ConnectionID, source cura.RosterSource, added, removed int, actor string) {
	if added == 0 && removed == 0 {
		return
	}
	tx.Audit(audit.Record{
		Kind: audit.RosterChanged, Actor: actor, Connection: connection, Outcome: audit.Success,
		Details: map[string]any{"source": source, "added": added, "removed": removed},
	})
}

func (tx *Tx) addMembers(ctx context.Context, connection cura.ConnectionID, source cura.RosterSource, ehrIDs []string) (added, known int, err error) {
	// A patient link gives its id to the member, so that what was read of the patient before belongs to the same partition.
	rows, err := tx.tx.Query(ctx, `
		INSERT INTO sync.roster AS r (org_id, connection_id, member_id, ehr_id, source)
		SELECT $1, $2, coalesce(l.link_id, gen_random_uuid()), g.ehr_id, $3
		FROM (SELECT DISTINCT unnest($4::text[]) AS ehr_id) g
		LEFT JOIN sync.patient_links l ON l.org_id = $1 AND l.connection_id = $2 AND l.ehr_id = g.ehr_id
		ORDER BY g.ehr_id
		ON CONFLICT (org_id, connection_id, ehr_id) DO UPDATE
			SET source = excluded.source, added_at = CASE WHEN r.removed_at IS NULL THEN r.added_at ELSE now() END, removed_at = NULL
			WHERE r.removed_at IS NOT NULL OR (r.source = 'group' AND excluded.source <> 'group')
		RETURNING member_id::text, added_at = now()`, tx.org, connection, source, ehrIDs)
	if err != nil {
		return 0, 0, err
	}
	var fresh []string
	var id string
	var isNew bool
	if _, err := pgx.ForEachRow(rows, []any{&id, &isNew}, func() error {
		if isNew {
			fresh = append(fresh, id)
		}
		return nil
	}); err != nil {
		return 0, 0, err
	}
	if err := tx.readWhole(ctx, connection, fresh); err != nil {
		return 0, 0, err
	}
	return len(fresh), distinct(ehrIDs) - len(fresh), nil
}

// readWhole forgets how far members have been read: a new member needs a full backfill, whatever was read of them before.
func (tx *Tx) readWhole(ctx context.Context, connection cura.ConnectionID, members []string) error {
	if len(members) == 0 {
		return nil
	}
	for _, table := range []string{"sync.cursors", "sync.watermarks"} {
		if _, err := tx.tx.Exec(ctx, `
			DELETE FROM `+table+` WHERE org_id = $1 AND connection_id = $2 AND partition = ANY($3)`, tx.org, connection, members); err != nil {
			return err
		}
	}
	return nil
}

func distinct(ids []string) int {
	seen := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		seen[id] = struct{}{}
	}
	return len(seen)
}

// RemoveMembers takes patients off the roster: they are read no more, and what was read of them stays. Unknown counts those
// who weren't on it.
func (tx *Tx) RemoveMembers(ctx context.Context, connection cura.ConnectionID, ehrIDs []string, actor string) (removed, unknown int, err error) {
	removed, err = tx.removeMembers(ctx, connection, `ehr_id = ANY($3)`, ehrIDs, actor)
	if err != nil {
		return 0, 0, err
	}
	tx.auditRoster(connection, "", 0, removed, actor)
	return removed, distinct(ehrIDs) - removed, nil
}

// removeMembers removes the active members whom the condition on ids ($3) picks. What waits for a person because they
// couldn't be read is closed: nobody reads them again.
func (tx *Tx) removeMembers(ctx context.Context, connection cura.ConnectionID, condition string, ids []string, actor string) (int, error) {
	rows, err := tx.tx.Query(ctx, `
		UPDATE sync.roster SET removed_at = now()
		WHERE org_id = $1 AND connection_id = $2 AND removed_at IS NULL AND `+condition+`
		RETURNING member_id::text`, tx.org, connection, ids)
	if err != nil {
		return 0, err
	}
	members, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(members) == 0 {
		return 0, err
	}
	rows, err = tx.tx.Query(ctx, `
		SELECT dead_letter_id FROM sync.dead_letters
		WHERE org_id = $1 AND connection_id = $2 AND state = 'open' AND partition = ANY($3)`, tx.org, connection, members)
	if err != nil {
		return 0, err
	}
	letters, err := pgx.CollectRows(rows, pgx.RowTo[cura.DeadLetterID])
	if err != nil {
		return 0, err
	}
	for _, id := range letters {
		if err := tx.CloseDeadLetter(ctx, id, "discarded", actor); err != nil {
			return 0, err
		}
	}
	return len(members), nil
}

// FollowGroup brings the members that a Group feeds in step with it: who is new joins, and who is there because of the Group
// and isn't in it any more leaves.
func (tx *Tx) FollowGroup(ctx context.Context, connection cura.ConnectionID, ehrIDs []string) (added, left int, err error) {
	added, _, err = tx.addMembers(ctx, connection, cura.RosterGroup, ehrIDs)
	if err != nil {
		return 0, 0, err
	}
	left, err = tx.removeMembers(ctx, connection, `source = 'group' AND NOT EXISTS (
			SELECT FROM unnest($3::text[]) AS g (ehr_id) WHERE g.ehr_id = sync.roster.ehr_id)`, ehrIDs, audit.Worker)
	if err != nil {
		return 0, 0, err
	}
	tx.auditRoster(connection, cura.RosterGroup, added, left, audit.Worker)
	return added, left, nil
}

// JoinLinked puts the patients on the roster whom the connection knows by their links and who have never been on it: those
// of the time when their EHR was read without a roster.
func (tx *Tx) JoinLinked(ctx context.Context, connection cura.ConnectionID) (added int, err error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT l.ehr_id FROM sync.patient_links l
		WHERE l.org_id = $1 AND l.connection_id = $2 AND NOT EXISTS (
			SELECT FROM sync.roster r WHERE r.org_id = $1 AND r.connection_id = $2 AND r.ehr_id = l.ehr_id)`, tx.org, connection)
	if err != nil {
		return 0, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	added, _, err = tx.AddMembers(ctx, connection, cura.RosterEnrolment, ids, audit.Worker)
	return added, err
}

// RosterCounts are a roster in numbers.
type RosterCounts struct {
	// Members counts the active members by what brought them.
	Members map[cura.RosterSource]int `json:"members"`
	// Removed counts those who are read no more.
	Removed int `json:"removed"`
	// Unknown counts the active members whom the EHR said it doesn't have; each has a dead letter.
	Unknown int `json:"unknown"`
	// Enrolments counts by state.
	Enrolments map[EnrolmentState]int `json:"enrolments"`
}

// Active is how many members there are.
func (c RosterCounts) Active() int {
	n := 0
	for _, members := range c.Members {
		n += members
	}
	return n
}

// RosterCounts counts the members and enrolments of a connection.
func (tx *Tx) RosterCounts(ctx context.Context, connection cura.ConnectionID) (RosterCounts, error) {
	counts := RosterCounts{Members: map[cura.RosterSource]int{}, Enrolments: map[EnrolmentState]int{}}
	rows, err := tx.tx.Query(ctx, `
		SELECT CASE WHEN removed_at IS NULL THEN source ELSE '' END, count(*) FROM sync.roster
		WHERE org_id = $1 AND connection_id = $2 GROUP BY 1`, tx.org, connection)
	if err != nil {
		return counts, err
	}
	var source cura.RosterSource
	var n int
	if _, err = pgx.ForEachRow(rows, []any{&source, &n}, func() error {
		if source == "" {
			counts.Removed = n
		} else {
			counts.Members[source] = n
		}
		return nil
	}); err != nil {
		return counts, err
	}
	err = tx.tx.QueryRow(ctx, `
		SELECT count(*) FROM sync.dead_letters d
		JOIN sync.roster r ON r.org_id = $1 AND r.connection_id = $2 AND r.member_id::text = d.partition AND r.removed_at IS NULL
		WHERE d.org_id = $1 AND d.connection_id = $2 AND d.state = 'open' AND d.resource_type = $3 AND d.fault = $4`,
		tx.org, connection, cura.Patient, fault.NotFound).Scan(&counts.Unknown)
	if err != nil {
		return counts, err
	}
	rows, err = tx.tx.Query(ctx, `
		SELECT state, count(*) FROM sync.enrolments WHERE org_id = $1 AND connection_id = $2 GROUP BY state`, tx.org, connection)
	if err != nil {
		return counts, err
	}
	var state EnrolmentState
	_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error {
		counts.Enrolments[state] = n
		return nil
	})
	return counts, err
}
