package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/match"
)

// profileColumns are the columns of a profile that follow from its record.
type profileColumns struct {
	Name, Family, Given       string
	BirthDate, BirthPrecision string
	Gender                    string
	Deceased, Active          *bool
	// Record is the profile whole, as JSON.
	Record string
}

func columnsOf(p *cura.Profile) (profileColumns, error) {
	record, err := json.Marshal(p)
	if err != nil {
		return profileColumns{}, err
	}
	c := profileColumns{Gender: p.Gender, Deceased: p.Deceased, Active: p.Active, Record: string(record)}
	if p.Name != nil {
		c.Name, c.Family, c.Given = p.Name.Display, p.Name.Family, strings.Join(p.Name.Given, " ")
	}
	if p.BirthDate != nil {
		c.BirthDate, c.BirthPrecision = p.BirthDate.Text, string(p.BirthDate.Precision)
	}
	return c, nil
}

// ProfileState is a profile as Cura shows it, and where that comes from. Record is PHI.
type ProfileState struct {
	ID     cura.ProfileID `json:"profile_id"`
	Record *cura.Profile  `json:"record"`
	// Connection and LastUpdated are of the EHR's version that is shown, or that was before Cura changed it.
	Connection  cura.ConnectionID `json:"connection_id"`
	LastUpdated *time.Time        `json:"last_updated,omitempty"`
	// ChangedAt is when Cura changed what it shows, after that version; nil: it didn't.
	ChangedAt *time.Time `json:"changed_at,omitempty"`
	// MergedInto is the profile that the last of its patients was moved to; empty: it has patients of its own.
	MergedInto cura.ProfileID `json:"merged_into,omitempty"`
	// MappingVersion made the record from that version.
	MappingVersion string `json:"mapping_version"`
}

// ProfileChange is what Cura changed in a profile, and who. It holds no values.
type ProfileChange struct {
	// Elements are paths such as name.family.
	Elements  []string  `json:"elements"`
	Actor     string    `json:"actor"`
	ChangedAt time.Time `json:"changed_at"`
}

const profileStateSQL = `
	SELECT profile_id, record, connection_id, last_updated, changed_at, coalesce(merged_into::text, ''), mapping_version
	FROM cura.profiles WHERE org_id = $1 AND profile_id = ANY ($2::uuid[]) ORDER BY profile_id`

// ProfileStates reads the profiles of these ids that the org has, each once, by id.
func (tx *Tx) ProfileStates(ctx context.Context, ids []cura.ProfileID) ([]ProfileState, error) {
	rows, err := tx.tx.Query(ctx, profileStateSQL, tx.org, uuids(ids))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[ProfileState])
}

// ProfileState reads a profile. Fault NotFound: the org has none of that id.
func (tx *Tx) ProfileState(ctx context.Context, id cura.ProfileID) (ProfileState, error) {
	return tx.profileState(ctx, "looking for the profile", id, "")
}

// profileState reads a profile, with a lock where one is named.
func (tx *Tx) profileState(ctx context.Context, op string, id cura.ProfileID, lock string) (ProfileState, error) {
	rows, err := tx.tx.Query(ctx, profileStateSQL+" "+lock, tx.org, uuids([]cura.ProfileID{id}))
	if err != nil {
		return ProfileState{}, err
	}
	state, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[ProfileState])
	if errors.Is(err, pgx.ErrNoRows) {
		return state, fault.New(op, fault.NotFound, "the org has no such profile").
			WithFix("Name it by Cura's id of the profile; starter consent show PATIENT tells it")
	}
	return state, err
}

// uuids are the ids that can be one's: what isn't a UUID names nothing.
func uuids(ids []cura.ProfileID) []string {
	var valid []string
	for _, id := range ids {
		if parsed, err := uuid.Parse(string(id)); err == nil {
			valid = append(valid, parsed.String())
		}
	}
	return valid
}

// ProfileChanges lists what Cura has changed in a profile, the newest first.
func (tx *Tx) ProfileChanges(ctx context.Context, id cura.ProfileID) ([]ProfileChange, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT elements, actor, changed_at FROM cura.profile_changes
		WHERE org_id = $1 AND profile_id = ANY ($2::uuid[]) ORDER BY change_id DESC`, tx.org, uuids([]cura.ProfileID{id}))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[ProfileChange])
}

// ChangeProfile has Cura change what it shows of a person, as its applications do: change edits the record, and the columns
// follow. It gives the paths of the elements that are others now; none: nothing was written. Where parts of the name change and
// the name as a whole isn't given anew, it is put together from them. It is audited, without values. Faults: NotFound for a
// profile that the org doesn't have, Conflict for one that has been merged into another, Config for values that no profile can
// have; whatever change fails with.
func (tx *Tx) ChangeProfile(ctx context.Context, id cura.ProfileID, change func(*cura.Profile) error, actor string) (changed []string, err error) {
	const op = "changing the profile"
	// Records that are written to the profile at the same time need its key alone, and don't wait.
	state, err := tx.profileState(ctx, op, id, "FOR NO KEY UPDATE")
	if err != nil {
		return nil, err
	}
	if state.MergedInto != "" {
		return nil, fault.Newf(op, fault.Conflict, "it has been merged into profile %s", state.MergedInto).WithFix("Change that one")
	}
	before, err := json.Marshal(state.Record)
	if err != nil {
		return nil, err
	}
	var edited cura.Profile
	if err := json.Unmarshal(before, &edited); err != nil {
		return nil, err
	}
	if err := change(&edited); err != nil {
		return nil, err
	}
	composeName(&edited, state.Record)
	if err := checkProfile(op, &edited); err != nil {
		return nil, err
	}
	for _, e := range match.Compare(state.Record, &edited) {
		switch {
		case e.Differs && match.OfSource(e.Path):
			return nil, fault.New(op, fault.Config, e.Path+" are the EHR's own").WithFix("Have the hospital change them")
		case e.Differs:
			changed = append(changed, e.Path)
		}
	}
	if len(changed) == 0 {
		return nil, nil
	}
	columns, err := columnsOf(&edited)
	if err != nil {
		return nil, err
	}
	tx.Audit(audit.Record{
		Kind: audit.ProfileChanged, Actor: actor, Outcome: audit.Success,
		Details: map[string]any{"profile": id, "elements": changed, "asserted": true},
	})
	_, err = tx.tx.Exec(ctx, `
		WITH changed AS (
			UPDATE cura.profiles SET name = $3, family = $4, given = $5, birth_date = $6, birth_date_precision = $7, gender = $8,
				deceased = $9, active = $10, record = $11, changed_at = clock_timestamp(), updated_at = now()
			WHERE org_id = $1 AND profile_id = $2 RETURNING changed_at
		)
		INSERT INTO cura.profile_changes (org_id, profile_id, elements, before, after, actor, changed_at)
		SELECT $1, $2, $12, $13, $11, $14, changed_at FROM changed`,
		tx.org, state.ID, columns.Name, columns.Family, columns.Given, columns.BirthDate, columns.BirthPrecision, columns.Gender,
		columns.Deceased, columns.Active, columns.Record, changed, string(before), actor)
	return changed, err
}

// composeName has the name as a whole follow from its parts where these have changed and it hasn't.
func composeName(p, before *cura.Profile) {
	if p.Name == nil || before.Name != nil && p.Name.Display != before.Name.Display {
		return
	}
	parts := func(n *cura.Name) []string {
		all := slices.Concat(n.Prefix, n.Given, []string{n.Family}, n.Suffix)
		return slices.DeleteFunc(all, func(part string) bool { return part == "" })
	}
	now := parts(p.Name)
	if before.Name != nil && slices.Equal(now, parts(before.Name)) {
		return
	}
	if p.Name.Display = strings.Join(now, " "); p.Name.Display == "" {
		p.Name = nil
	}
}

// AdministrativeGenders are the codes of R4's administrative-gender.
func AdministrativeGenders() []string { return []string{"male", "female", "other", "unknown"} }

// checkProfile refuses values that no mapping would have made.
func checkProfile(op string, p *cura.Profile) error {
	if p.Gender != "" && !slices.Contains(AdministrativeGenders(), p.Gender) {
		return fault.New(op, fault.Config, "gender isn't a code of R4's administrative-gender").
			WithFix("Give one of " + strings.Join(AdministrativeGenders(), ", "))
	}
	if b := p.BirthDate; b != nil {
		layouts := map[cura.Precision]string{cura.PrecisionYear: "2006", cura.PrecisionMonth: "2006-01", cura.PrecisionDay: time.DateOnly}
		at, err := time.Parse(layouts[b.Precision], b.Text)
		if err != nil || b.Precision == "" || !at.Equal(b.Start) {
			return fault.New(op, fault.Config, "birth_date isn't a date").WithFix("Give it as 1980-02-28, 1980-02 or 1980")
		}
	}
	return nil
}
