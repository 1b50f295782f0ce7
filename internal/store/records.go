package store

import (
	"context"
	"encoding/json"
	"strings"
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
}

// Patients reads the link states of the patients named by EHR ids; a patient that isn't there has none.
func (tx *Tx) Patients(ctx context.Context, connection cura.ConnectionID, ids []string) (map[string]LinkState, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT p.ehr_id, coalesce(l.profile_id::text, ''), coalesce(r.outcome = 'in_review', false)
		FROM unnest($3::text[]) AS p (ehr_id)
		LEFT JOIN LATERAL (SELECT l.profile_id FROM sync.patient_links l
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
	_, err = pgx.ForEachRow(rows, []any{&id, &s.Profile, &s.InReview}, func() error {
		states[id] = s
		return nil
	})
	return states, err
}

// Candidates finds the profiles of the org that carry one of values in system, by value. With cura-id the value may be
// a profile's own id.
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
			p.connection_id, p.ehr_id, p.last_updated,
			coalesce((SELECT l.ehr_id FROM sync.patient_links l
				WHERE l.org_id = $1 AND l.connection_id = $2 AND l.profile_id = p.profile_id ORDER BY l.ehr_id LIMIT 1), '')
		FROM found f JOIN cura.profiles p ON p.org_id = $1 AND p.profile_id = f.profile_id
		ORDER BY p.profile_id`, tx.org, connection, strategy.System, values, ids)
	if err != nil {
		return nil, err
	}
	found := map[string][]match.Candidate{}
	var value string
	var c match.Candidate
	_, err = pgx.ForEachRow(rows, []any{&value, &c.Profile, &c.BirthDate, &c.Family, &c.Given, &c.OtherFamilies, &c.SourceConnection, &c.SourceEHRID, &c.LastUpdated, &c.TakenBy},
		func() error {
			found[value] = append(found[value], c)
			return nil
		})
	return found, err
}

// putRecords writes the Cura rows of the items that are stored, newest wins.
func (tx *Tx) putRecords(batch *pgx.Batch, pass Pass, mappingVersion string, items []Item, landed map[string]int64) error {
	tables := map[string][]clinicalRow{}
	var consenting []string
	for _, it := range items {
		if it.Outcome != Stored {
			continue
		}
		r := it.Record
		head := recordHead{pass: pass, item: it, landing: landed[it.EHRID], mappingVersion: mappingVersion}
		switch {
		case r.Profile != nil:
			if err := tx.putProfile(batch, head); err != nil {
				return err
			}
		case r.Consent != nil:
			if err := tx.putConsent(batch, head); err != nil {
				return err
			}
			consenting = append(consenting, string(it.Profile))
		default:
			table, row, err := clinical(head)
			if err != nil {
				return err
			}
			tables[table] = append(tables[table], row)
		}
	}
	if len(consenting) > 0 {
		haltPulled(batch, tx.org, consenting)
	}
	for table, rows := range tables {
		tx.putClinical(batch, table, pass, mappingVersion, rows)
	}
	return nil
}

type recordHead struct {
	pass           Pass
	item           Item
	landing        int64
	mappingVersion string
}

func (tx *Tx) putProfile(batch *pgx.Batch, h recordHead) error {
	p := h.item.Record.Profile
	record, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var name, family, given, birth, precision string
	if p.Name != nil {
		name, family, given = p.Name.Display, p.Name.Family, strings.Join(p.Name.Given, " ")
	}
	if p.BirthDate != nil {
		birth, precision = p.BirthDate.Text, string(p.BirthDate.Precision)
	}
	// A later version from the same patient wins; from another source, the one that was updated later.
	batch.Queue(`
		INSERT INTO cura.profiles AS p (org_id, profile_id, name, family, given, birth_date, birth_date_precision, gender, deceased, active,
			record, connection_id, ehr_id, last_updated, landing_id, mapping_version)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT (org_id, profile_id) DO UPDATE
			SET name = excluded.name, family = excluded.family, given = excluded.given, birth_date = excluded.birth_date,
				birth_date_precision = excluded.birth_date_precision, gender = excluded.gender, deceased = excluded.deceased,
				active = excluded.active, record = excluded.record, connection_id = excluded.connection_id, ehr_id = excluded.ehr_id,
				last_updated = excluded.last_updated, landing_id = excluded.landing_id, mapping_version = excluded.mapping_version,
				updated_at = now()
			WHERE (p.connection_id = excluded.connection_id AND p.ehr_id = excluded.ehr_id) OR p.last_updated < excluded.last_updated`,
		tx.org, h.item.Profile, name, family, given, birth, precision, p.Gender, p.Deceased, p.Active,
		string(record), h.pass.Connection, h.item.EHRID, h.item.LastUpdated, h.landing, h.mappingVersion)

	var systems, values, codes []string
	for _, id := range p.Identifiers {
		if len(id.System)+len(id.Value) > match.MaxIdentifier {
			continue
		}
		code := ""
		if len(id.Type.Codings) > 0 {
			code = id.Type.Codings[0].Code
		}
		systems, values, codes = append(systems, id.System), append(values, strings.TrimSpace(id.Value)), append(codes, code)
	}
	batch.Queue(`DELETE FROM cura.profile_identifiers WHERE org_id = $1 AND profile_id = $2 AND connection_id = $3`,
		tx.org, h.item.Profile, h.pass.Connection)
	batch.Queue(`
		INSERT INTO cura.profile_identifiers (org_id, profile_id, connection_id, system, value, type_code)
		SELECT $1, $2, $3, * FROM unnest($4::text[], $5::text[], $6::text[]) ON CONFLICT DO NOTHING`,
		tx.org, h.item.Profile, h.pass.Connection, systems, values, codes)
	if h.item.MatchedBy != "" {
		batch.Queue(`
			INSERT INTO sync.patient_links (org_id, link_id, connection_id, ehr_id, profile_id, matched_by)
			VALUES ($1, $2, $3, $4, $5, $6)`,
			tx.org, uuid.NewString(), h.pass.Connection, h.item.EHRID, h.item.Profile, h.item.MatchedBy)
	}
	return nil
}

// putConsent logs a version of a consent. The events that Cura has written itself come back with the pull: they are landed, and
// are no consents of the patient's.
func (tx *Tx) putConsent(batch *pgx.Batch, h recordHead) error {
	c := h.item.Record.Consent
	record, err := json.Marshal(c)
	if err != nil {
		return err
	}
	starts, ends := span(c.Period)
	batch.Queue(`
		INSERT INTO cura.consent_log (org_id, connection_id, ehr_id, profile_id, entered_in_error, last_updated, landing_id,
			mapping_version, status, root_type, starts_at, ends_at, record)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::json
		WHERE $14 = '' OR NOT EXISTS (
			SELECT FROM push.ledger WHERE org_id = $1 AND connection_id = $2 AND resource = 'Consent' AND artefact_id || '.' || artefact_version = $14)
		ON CONFLICT (org_id, landing_id) DO NOTHING`,
		tx.org, h.pass.Connection, h.item.EHRID, h.item.Profile, h.item.Record.EnteredInError, h.item.LastUpdated, h.landing,
		h.mappingVersion, c.Status, c.RootType, starts, ends, string(record), h.item.Record.WrittenAs)
	return nil
}

// clinicalRow is one row of allergies, medications, observations or visits: the columns that they share.
type clinicalRow struct {
	head         recordHead
	status       string
	code         cura.Coding
	label        string
	starts, ends *time.Time
	record       string
	// Of observations alone.
	value, unit, analyte string
}

func clinical(h recordHead) (string, clinicalRow, error) {
	row := clinicalRow{head: h}
	var table string
	var whole any
	switch r := h.item.Record; {
	case r.Allergy != nil:
		table, whole, row.status = "cura.allergies", r.Allergy, r.Allergy.ClinicalStatus
		row.code, row.label = firstCoding(r.Allergy.Code)
		row.starts = start(r.Allergy.RecordedAt)
	case r.Medication != nil:
		table, whole, row.status = "cura.medications", r.Medication, r.Medication.Status
		row.code, row.label = firstCoding(r.Medication.Code)
		if row.starts, row.ends = span(r.Medication.Effective); row.starts == nil {
			row.starts = start(r.Medication.AuthoredAt)
		}
	case r.Observation != nil:
		table, whole, row.status = "labs.observations", r.Observation, r.Observation.Status
		row.code, row.label = firstCoding(r.Observation.Code)
		if row.starts = start(r.Observation.Effective); row.starts == nil {
			row.starts, row.ends = span(r.Observation.EffectivePeriod)
		}
		row.value, row.unit = inWords(r.Observation.Value)
		row.analyte = r.Observation.Analyte
	case r.Visit != nil:
		table, whole, row.status = "cura.visits", r.Visit, r.Visit.Status
		row.code, row.label = r.Visit.Class, r.Visit.Class.Display
		if len(r.Visit.Types) > 0 {
			_, row.label = firstCoding(r.Visit.Types[0])
		}
		row.starts, row.ends = span(r.Visit.Period)
	}
	record, err := json.Marshal(whole)
	row.record = string(record)
	return table, row, err
}

func (tx *Tx) putClinical(batch *pgx.Batch, table string, pass Pass, mappingVersion string, rows []clinicalRow) {
	n := len(rows)
	ids, profiles, errs, updated, landings := make([]string, n), make([]string, n), make([]bool, n), make([]*time.Time, n), make([]int64, n)
	statuses, systems, codes, labels := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	starts, ends, records := make([]*time.Time, n), make([]*time.Time, n), make([]string, n)
	values, units, analytes := make([]string, n), make([]string, n), make([]string, n)
	for i, r := range rows {
		ids[i], profiles[i], errs[i] = r.head.item.EHRID, string(r.head.item.Profile), r.head.item.Record.EnteredInError
		updated[i], landings[i] = r.head.item.LastUpdated, r.head.landing
		statuses[i], systems[i], codes[i], labels[i] = r.status, r.code.System, r.code.Code, r.label
		starts[i], ends[i], records[i] = r.starts, r.ends, r.record
		values[i], units[i], analytes[i] = r.value, r.unit, r.analyte
	}
	columns, from, set := "", "", ""
	args := []any{tx.org, pass.Connection, pass.Type, mappingVersion, ids, profiles, errs, updated, landings, statuses, systems, codes, labels, starts, ends, records}
	if table == "labs.observations" {
		columns, from = ", value, unit, analyte", ", $17::text[], $18::text[], $19::text[]"
		set = ", value = excluded.value, unit = excluded.unit, analyte = excluded.analyte"
		args = append(args, values, units, analytes)
	}
	batch.Queue(`
		INSERT INTO `+table+` (org_id, connection_id, resource_type, mapping_version, ehr_id, profile_id, entered_in_error, last_updated,
			landing_id, status, code_system, code, label, starts_at, ends_at, record`+columns+`)
		SELECT $1, $2, $3, $4, * FROM unnest($5::text[], $6::uuid[], $7::boolean[], $8::timestamptz[], $9::bigint[], $10::text[],
			$11::text[], $12::text[], $13::text[], $14::timestamptz[], $15::timestamptz[], $16::json[]`+from+`)
		ON CONFLICT (org_id, connection_id, resource_type, ehr_id) DO UPDATE
			SET mapping_version = excluded.mapping_version, profile_id = excluded.profile_id, entered_in_error = excluded.entered_in_error,
				last_updated = excluded.last_updated, landing_id = excluded.landing_id, status = excluded.status,
				code_system = excluded.code_system, code = excluded.code, label = excluded.label, starts_at = excluded.starts_at,
				ends_at = excluded.ends_at, record = excluded.record, updated_at = now()`+set, args...)
}

func firstCoding(c cura.Concept) (cura.Coding, string) {
	var first cura.Coding
	if len(c.Codings) > 0 {
		first = c.Codings[0]
	}
	if c.Text != "" {
		return first, c.Text
	}
	return first, first.Display
}

func start(m *cura.Moment) *time.Time {
	if m == nil {
		return nil
	}
	return &m.Start
}

func span(p *cura.Period) (*time.Time, *time.Time) {
	if p == nil {
		return nil, nil
	}
	var end *time.Time
	if p.End != nil {
		end = &p.End.End
	}
	return start(p.Start), end
}

// inWords is the value as people look for it: the digits and comparator as they came, or the words.
func inWords(v *cura.ObservationValue) (string, string) {
	switch {
	case v == nil:
		return "", ""
	case v.Quantity != nil:
		unit := v.Quantity.Code
		if unit == "" {
			unit = v.Quantity.Unit
		}
		return v.Quantity.Comparator + v.Quantity.Value.String(), unit
	case v.Concept != nil:
		_, label := firstCoding(*v.Concept)
		return label, ""
	case v.Integer != "":
		return v.Integer.String(), ""
	case v.Boolean != nil && *v.Boolean:
		return "true", ""
	case v.Boolean != nil:
		return "false", ""
	case v.Moment != nil:
		return v.Moment.Text, ""
	}
	return v.Text, ""
}
