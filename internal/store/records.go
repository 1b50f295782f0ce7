package store

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/match"
)

// putRecords writes the Cura rows of the items that are stored, newest wins.
func (tx *Tx) putRecords(batch *pgx.Batch, pass Pass, mappingVersion string, items []Item, landed map[string]int64) error {
	tables := map[string][]clinicalRow{}
	var consenting []string
	if pass.Type == cura.Patient {
		// Who was merged into a patient of the same page gets that one's profile, which has to be there.
		items = slices.Clone(items)
		slices.SortStableFunc(items, func(a, b Item) int { return min(len(a.ReplacedBy), 1) - min(len(b.ReplacedBy), 1) })
	}
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

// putProfile writes what a patient's version says of their profile, as far as the item says, and their link.
func (tx *Tx) putProfile(batch *pgx.Batch, h recordHead) error {
	it := h.item
	if it.ReplacedBy == "" {
		if !it.Keep {
			if err := tx.showProfile(batch, h); err != nil {
				return err
			}
		}
		tx.putIdentifiers(batch, h)
	}
	switch {
	case it.MatchedBy != "":
		if it.MatchedBy != "new" {
			// Another may be linked to it already, whose rows don't say whose they are.
			stampRecords(batch, tx.org, h.pass.Connection, it.Profile)
		}
		batch.Queue(`
			INSERT INTO sync.patient_links (org_id, link_id, connection_id, ehr_id, profile_id, matched_by, replaced_by)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			tx.org, uuid.NewString(), h.pass.Connection, it.EHRID, it.Profile, it.MatchedBy, it.ReplacedBy)
	case it.Relink:
		batch.Queue(`UPDATE sync.patient_links SET replaced_by = $4 WHERE org_id = $1 AND connection_id = $2 AND ehr_id = $3`,
			tx.org, h.pass.Connection, it.EHRID, it.ReplacedBy)
	}
	return nil
}

// showProfile has a profile show a version from now on, whatever it has shown.
func (tx *Tx) showProfile(batch *pgx.Batch, h recordHead) error {
	c, err := columnsOf(h.item.Record.Profile)
	if err != nil {
		return err
	}
	batch.Queue(`
		INSERT INTO cura.profiles AS p (org_id, profile_id, name, family, given, birth_date, birth_date_precision, gender, deceased, active,
			record, connection_id, ehr_id, last_updated, landing_id, mapping_version)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT (org_id, profile_id) DO UPDATE
			SET name = excluded.name, family = excluded.family, given = excluded.given, birth_date = excluded.birth_date,
				birth_date_precision = excluded.birth_date_precision, gender = excluded.gender, deceased = excluded.deceased,
				active = excluded.active, record = excluded.record, connection_id = excluded.connection_id, ehr_id = excluded.ehr_id,
				last_updated = excluded.last_updated, landing_id = excluded.landing_id, mapping_version = excluded.mapping_version,
				changed_at = NULL, updated_at = now()`,
		tx.org, h.item.Profile, c.Name, c.Family, c.Given, c.BirthDate, c.BirthPrecision, c.Gender, c.Deceased, c.Active,
		c.Record, h.pass.Connection, h.item.EHRID, h.item.LastUpdated, h.landing, h.mappingVersion)
	return nil
}

// putIdentifiers writes the identifiers by which the connection's patient is found.
func (tx *Tx) putIdentifiers(batch *pgx.Batch, h recordHead) {
	var systems, values, codes []string
	for _, id := range h.item.Record.Profile.Identifiers {
		if len(id.System)+len(id.Value) > match.MaxIdentifier {
			continue
		}
		code := ""
		if len(id.Type.Codings) > 0 {
			code = id.Type.Codings[0].Code
		}
		systems, values, codes = append(systems, id.System), append(values, strings.TrimSpace(id.Value)), append(codes, code)
	}
	batch.Queue(`DELETE FROM cura.profile_identifiers WHERE org_id = $1 AND profile_id = $2 AND connection_id = $3 AND patient_ehr_id IN ($4, '')`,
		tx.org, h.item.Profile, h.pass.Connection, h.item.EHRID)
	batch.Queue(`
		INSERT INTO cura.profile_identifiers (org_id, profile_id, connection_id, patient_ehr_id, system, value, type_code)
		SELECT $1, $2, $3, $4, * FROM unnest($5::text[], $6::text[], $7::text[]) ON CONFLICT DO NOTHING`,
		tx.org, h.item.Profile, h.pass.Connection, h.item.EHRID, systems, values, codes)
}

// putConsent logs a version of a consent. The events that Cura has written itself come back with the pull: they are landed, and
// are no consents of the patient's. A permit of somebody who was merged into another counts for the other only where an earlier
// version of it does.
func (tx *Tx) putConsent(batch *pgx.Batch, h recordHead) error {
	c := h.item.Record.Consent
	record, err := json.Marshal(c)
	if err != nil {
		return err
	}
	starts, ends := span(c.Period)
	batch.Queue(`
		INSERT INTO cura.consent_log (org_id, connection_id, ehr_id, profile_id, entered_in_error, last_updated, landing_id,
			mapping_version, status, root_type, starts_at, ends_at, record, patient_ehr_id)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::json, $15
		WHERE ($14 = '' OR NOT EXISTS (
				SELECT FROM push.ledger WHERE org_id = $1 AND connection_id = $2 AND resource = 'Consent' AND artefact_id || '.' || artefact_version = $14))
			AND (NOT $16 OR EXISTS (
				SELECT FROM cura.consent_log l WHERE l.org_id = $1 AND l.profile_id = $4 AND l.connection_id = $2 AND l.ehr_id = $3))
		ON CONFLICT (org_id, landing_id) WHERE NOT moved DO NOTHING`,
		tx.org, h.pass.Connection, h.item.EHRID, h.item.Profile, h.item.Record.EnteredInError, h.item.LastUpdated, h.landing,
		h.mappingVersion, c.Status, c.RootType, starts, ends, string(record), h.item.Record.WrittenAs, h.item.Record.PatientEHRID, h.item.Keep)
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
	patients := make([]string, n)
	for i, r := range rows {
		ids[i], profiles[i], errs[i] = r.head.item.EHRID, string(r.head.item.Profile), r.head.item.Record.EnteredInError
		updated[i], landings[i] = r.head.item.LastUpdated, r.head.landing
		statuses[i], systems[i], codes[i], labels[i] = r.status, r.code.System, r.code.Code, r.label
		starts[i], ends[i], records[i] = r.starts, r.ends, r.record
		values[i], units[i], analytes[i] = r.value, r.unit, r.analyte
		patients[i] = r.head.item.Record.PatientEHRID
	}
	columns, from, set := "", "", ""
	args := []any{tx.org, pass.Connection, pass.Type, mappingVersion, ids, profiles, errs, updated, landings, statuses, systems, codes, labels, starts, ends, records, patients}
	if table == "labs.observations" {
		columns, from = ", value, unit, analyte", ", $18::text[], $19::text[], $20::text[]"
		set = ", value = excluded.value, unit = excluded.unit, analyte = excluded.analyte"
		args = append(args, values, units, analytes)
	}
	batch.Queue(`
		INSERT INTO `+table+` (org_id, connection_id, resource_type, mapping_version, ehr_id, profile_id, entered_in_error, last_updated,
			landing_id, status, code_system, code, label, starts_at, ends_at, record, patient_ehr_id`+columns+`)
		SELECT $1, $2, $3, $4, * FROM unnest($5::text[], $6::uuid[], $7::boolean[], $8::timestamptz[], $9::bigint[], $10::text[],
			$11::text[], $12::text[], $13::text[], $14::timestamptz[], $15::timestamptz[], $16::json[], $17::text[]`+from+`)
		ON CONFLICT (org_id, connection_id, resource_type, ehr_id) DO UPDATE
			SET mapping_version = excluded.mapping_version, profile_id = excluded.profile_id, entered_in_error = excluded.entered_in_error,
				last_updated = excluded.last_updated, landing_id = excluded.landing_id, status = excluded.status,
				code_system = excluded.code_system, code = excluded.code, label = excluded.label, starts_at = excluded.starts_at,
				ends_at = excluded.ends_at, record = excluded.record,
				patient_ehr_id = excluded.patient_ehr_id, updated_at = now()`+set, args...)
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
