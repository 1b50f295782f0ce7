package store

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Retake selects landed resources of one type that are to be decided again. What the EHR has no more isn't: its rows stay as they
// were. What it has withdrawn, entered in error, is.
type Retake struct {
	// Patients narrows it to what is known to be about these: ids of patient links. Empty: everybody's.
	Patients []string
	// Quarantined narrows it to what is in quarantine, and the others to those of it with this id, with a reason about this element
	// or one within it, and with a reason that has these words.
	Quarantined bool
	Quarantine  string
	Path        string
	Reason      string

	// ehrID narrows it to one resource.
	ehrID string
}

// RetakeKind is what becomes of a resource that is decided again.
type RetakeKind string

// The kinds.
const (
	// RetakeSame: its record, or why there is none, is what it was.
	RetakeSame RetakeKind = "same"
	// RetakeChanged: its record is another one.
	RetakeChanged RetakeKind = "changed"
	// RetakeRejected: it had a record, or waited for a person, and can't be mapped any more.
	RetakeRejected RetakeKind = "rejected"
	// RetakeAccepted: it was in quarantine, or waited for a person, and needn't any more.
	RetakeAccepted RetakeKind = "accepted"
	// RetakeInReview: it had a record, and waits for a person now.
	RetakeInReview RetakeKind = "in_review"
	// RetakeExcluded: the mapping overrides take no resources of its type; it stays as it is.
	RetakeExcluded RetakeKind = "excluded"
	// RetakeWithheld: its patient's consents keep it out; it stays as it is.
	RetakeWithheld RetakeKind = "withheld"
	// RetakeSkipped: it was landed without its content, which was too large.
	RetakeSkipped RetakeKind = "skipped"
)

// RetakeCounts says how many resources became what.
type RetakeCounts struct {
	Same     int `json:"same"`
	Changed  int `json:"changed"`
	Rejected int `json:"rejected"`
	Accepted int `json:"accepted"`
	InReview int `json:"in_review"`
	Excluded int `json:"excluded"`
	Withheld int `json:"withheld"`
	Skipped  int `json:"skipped"`
}

// Counts is one resource of the kind.
func (k RetakeKind) Counts() RetakeCounts {
	var c RetakeCounts
	switch k {
	case RetakeSame:
		c.Same = 1
	case RetakeChanged:
		c.Changed = 1
	case RetakeRejected:
		c.Rejected = 1
	case RetakeAccepted:
		c.Accepted = 1
	case RetakeInReview:
		c.InReview = 1
	case RetakeExcluded:
		c.Excluded = 1
	case RetakeWithheld:
		c.Withheld = 1
	case RetakeSkipped:
		c.Skipped = 1
	}
	return c
}

// Plus is the sum of two counts.
func (c RetakeCounts) Plus(d RetakeCounts) RetakeCounts {
	return RetakeCounts{
		Same: c.Same + d.Same, Changed: c.Changed + d.Changed, Rejected: c.Rejected + d.Rejected, Accepted: c.Accepted + d.Accepted,
		InReview: c.InReview + d.InReview, Excluded: c.Excluded + d.Excluded, Withheld: c.Withheld + d.Withheld, Skipped: c.Skipped + d.Skipped,
	}
}

// All is the number of resources.
func (c RetakeCounts) All() int {
	return c.Same + c.Changed + c.Rejected + c.Accepted + c.InReview + c.Excluded + c.Withheld + c.Skipped
}

// Retaken is what has become of a type's resources in a run that decides them again.
type Retaken struct {
	Type cura.ResourceType `json:"type"`
	RetakeCounts

	// Elements tells in how many of the changed records an element differs, by names such as Observation.code.codings.
	Elements map[string]int `json:"elements,omitempty"`
	// Reasons tells why resources can't be mapped, those too that couldn't before: element and words, and of how many.
	Reasons map[string]int `json:"reasons,omitempty"`
}

// RetakeState is how far a run has come in a type.
type RetakeState struct {
	Retaken

	// After is the EHR id up to which it has come.
	After string
	Done  bool
}

// LandedRow is what Cura has of a landed resource.
type LandedRow struct {
	// Record is the mapped record as JSON.
	Record         []byte
	Profile        cura.ProfileID
	EnteredInError bool
	MappingVersion string
}

// Landed is a resource as it landed last, and what became of it.
type Landed struct {
	// Item has no outcome: it is to be decided again. Raw is nil where it was landed without its content.
	Item Item
	// Outcome, WaitsForPatient and Reasons are what was decided before.
	Outcome         Outcome
	WaitsForPatient string
	Reasons         []Reason
	// Row is nil where Cura shows nothing of this version: because of the outcome, or because the patient's profile shows
	// something else.
	Row *LandedRow
}

// landedBytes bounds the content of a page; one resource may be larger.
const landedBytes = 16 << 20

// Landed lists resources of the pass's type by EHR id: at most limit, of those that sel selects, after after and, unless it is
// empty, up to upTo. None: there are no more. A page is also ended by its size. With upTo it is ended by that alone.
func (tx *Tx) Landed(ctx context.Context, pass Pass, sel Retake, after, upTo string, limit int) ([]Landed, error) {
	selected, args := sel.condition(pass.Type)
	rows, err := tx.tx.Query(ctx, `
		SELECT x.ehr_id, x.content_hash, x.last_updated, x.landing_id, coalesce(x.version_id, ''), x.raw, coalesce(x.raw_bytes, 0),
			x.outcome, coalesce(x.waits_for_patient, ''), q.reasons, t.record, coalesce(t.profile_id::text, ''),
			coalesce(t.entered_in_error, false), coalesce(t.mapping_version, '')
		FROM (
			SELECT r.ehr_id, r.content_hash, r.last_updated, r.landing_id, r.outcome, r.waits_for_patient, l.version_id, l.raw, l.raw_bytes, row_number() OVER by_id AS nth,
				sum(CASE WHEN l.raw IS NULL THEN 0 ELSE l.raw_bytes END) OVER by_id AS bytes
			FROM (
				SELECT r.ehr_id, r.content_hash, r.last_updated, r.landing_id, r.outcome, r.waits_for_patient FROM sync.resources r
				WHERE r.org_id = $1 AND r.connection_id = $2 AND r.resource_type = $3 AND r.ehr_id > $4 AND ($5 = '' OR r.ehr_id <= $5)
					AND (r.gone_at IS NULL OR r.gone_reason = 'entered-in-error')`+selected+`
				ORDER BY r.ehr_id LIMIT CASE $5 WHEN '' THEN $6::bigint END) AS r
			LEFT JOIN LATERAL (
				SELECT l.version_id, l.raw, l.raw_bytes FROM sync.landing l WHERE l.org_id = $1 AND l.landing_id = r.landing_id LIMIT 1) AS l ON true
			WINDOW by_id AS (ORDER BY r.ehr_id)) AS x
		LEFT JOIN LATERAL (
			SELECT q.reasons FROM sync.quarantine q
			WHERE q.org_id = $1 AND q.connection_id = $2 AND q.resource_type = $3 AND q.ehr_id = x.ehr_id AND q.closed_at IS NULL LIMIT 1) AS q ON true
		LEFT JOIN LATERAL (`+landedRow(pass.Type)+`) AS t ON true
		WHERE x.nth = 1 OR x.bytes <= $7 OR $5 <> ''
		ORDER BY x.ehr_id`,
		append([]any{tx.org, pass.Connection, pass.Type, after, upTo, limit, landedBytes}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Landed, error) {
		var l Landed
		var r LandedRow
		var hash, raw []byte
		it := &l.Item
		err := row.Scan(&it.EHRID, &hash, &it.LastUpdated, &it.Landing, &it.VersionID, &raw, &it.RawBytes,
			&l.Outcome, &l.WaitsForPatient, &l.Reasons, &r.Record, &r.Profile, &r.EnteredInError, &r.MappingVersion)
		if err != nil {
			return l, err
		}
		copy(it.Hash[:], hash)
		if r.Record != nil {
			l.Row = &r
		}
		if raw != nil {
			it.Raw, err = tx.store.decoder.DecodeAll(raw, nil)
		}
		return l, err
	})
}

// landedRow is the query of what Cura has of the version of a landed resource x.
func landedRow(t cura.ResourceType) string {
	switch t {
	case cura.Patient:
		return `
			SELECT p.record, p.profile_id, false AS entered_in_error, p.mapping_version
			FROM sync.patient_links k JOIN cura.profiles p ON p.org_id = $1 AND p.profile_id = k.profile_id
			WHERE k.org_id = $1 AND k.connection_id = $2 AND k.ehr_id = x.ehr_id
				AND p.connection_id = $2 AND p.ehr_id = x.ehr_id AND p.landing_id = x.landing_id AND p.changed_at IS NULL LIMIT 1`
	case cura.Consent:
		return `
			SELECT c.record, c.profile_id, c.entered_in_error, c.mapping_version
			FROM cura.consent_log c WHERE c.org_id = $1 AND c.landing_id = x.landing_id AND NOT c.moved LIMIT 1`
	case cura.AllergyIntolerance, cura.MedicationRequest, cura.MedicationStatement, cura.Observation, cura.Encounter:
	}
	return `
		SELECT c.record, c.profile_id, c.entered_in_error, c.mapping_version FROM ` + recordTable(t) + ` c
		WHERE c.org_id = $1 AND c.connection_id = $2 AND c.resource_type = $3 AND c.ehr_id = x.ehr_id LIMIT 1`
}

// condition is what the query of Landed selects resources r by, besides their type, with the arguments from $8 on. Each sets out
// from what is few.
func (sel Retake) condition(t cura.ResourceType) (sql string, args []any) {
	if sel.Quarantined {
		sql += `
					AND r.ehr_id = ANY (ARRAY (
						SELECT q.ehr_id FROM sync.quarantine q
						WHERE q.org_id = $1 AND q.connection_id = $2 AND q.resource_type = $3 AND q.closed_at IS NULL
							AND q.ehr_id > $4 AND ($5 = '' OR q.ehr_id <= $5) AND ($8 = '' OR q.quarantine_id::text = $8)
							AND ` + rejectedFor("$9", "$10") + `
						ORDER BY q.ehr_id LIMIT CASE $5 WHEN '' THEN $6::bigint END))`
		args = append(args, sel.Quarantine, sel.Path, sel.Reason)
	}
	if sel.ehrID != "" {
		sql += `
					AND r.ehr_id = $` + strconv.Itoa(8+len(args))
		args = append(args, sel.ehrID)
	}
	if len(sel.Patients) > 0 {
		links := "$" + strconv.Itoa(8+len(args))
		sql += `
					AND r.ehr_id = ANY (ARRAY (
						SELECT p.ehr_id FROM sync.patient_links k, LATERAL (
							SELECT k.ehr_id WHERE $3 = 'Patient'
							UNION ALL
							SELECT w.ehr_id FROM sync.resources w WHERE w.org_id = $1 AND w.connection_id = $2 AND w.resource_type = $3
								AND w.waits_for_patient = k.ehr_id` + recordsOf(t) + `) AS p
						WHERE k.org_id = $1 AND k.connection_id = $2 AND k.link_id = ANY (` + links + `::uuid[])))`
		args = append(args, sel.Patients)
	}
	return sql, args
}

// recordsOf is the part of a query that adds the records of a link k. Rows from before they told whose they are are their
// profile's.
func recordsOf(t cura.ResourceType) string {
	switch t {
	case cura.Patient:
		return ""
	case cura.Consent:
		return `
							UNION ALL
							SELECT c.ehr_id FROM cura.consent_log c
							WHERE c.org_id = $1 AND c.connection_id = $2 AND c.profile_id = k.profile_id`
	case cura.AllergyIntolerance, cura.MedicationRequest, cura.MedicationStatement, cura.Observation, cura.Encounter:
	}
	return `
							UNION ALL
							SELECT c.ehr_id FROM ` + recordTable(t) + ` c
							WHERE c.org_id = $1 AND c.connection_id = $2 AND c.resource_type = $3 AND c.profile_id = k.profile_id
								AND c.patient_ehr_id IN ('', k.ehr_id)`
}

// rejectedFor holds for the rows q of sync.quarantine that have a reason about the element path, or one within it, with the words
// reason; both are parameters, and empty for any.
func rejectedFor(path, reason string) string {
	return `EXISTS (
		SELECT FROM json_array_elements(q.reasons) AS e
		WHERE (` + path + ` = '' OR e->>'path' = ` + path + ` OR starts_with(e->>'path', ` + path + ` || '.') OR starts_with(e->>'path', ` + path + ` || '['))
			AND (` + reason + ` = '' OR position(lower(` + reason + `) IN lower(e->>'text')) > 0))`
}
