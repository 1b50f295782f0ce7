package cura

import (
	"encoding/json"
	"time"
)

// Record is what a mapping makes of one FHIR resource. Exactly one of the pointers is set, the one that fits Type.
type Record struct {
	Type ResourceType
	// EHRID is Resource.id as the EHR gave it. It is PHI.
	EHRID string
	// PatientEHRID is the id of the patient that the resource is about, without "Patient/"; for a Patient its own id.
	PatientEHRID string
	// PatientBase is the service base of the reference to the patient where that was an absolute URL, without a trailing
	// slash; empty for a relative one. Ids are unique under one base only: compare it with the connection's.
	PatientBase string
	// LastUpdated is meta.lastUpdated, zero where the EHR leaves it out.
	LastUpdated time.Time
	// VersionID is meta.versionId, opaque, often absent.
	VersionID string
	// EnteredInError marks a record that the EHR has withdrawn; its row is kept and marked, never deleted.
	EnteredInError bool
	// WrittenAs is the identifier by which Cura says that it has written the resource itself (mappings.IdentifierOf); the ledger
	// knows whether that is true. Empty where it carries none.
	WrittenAs string

	Profile     *Profile
	Allergy     *Allergy
	Medication  *Medication
	Observation *LabObservation
	Visit       *Visit
	Consent     *ConsentEntry
}

// Precision tells how much of a partial FHIR date was given.
type Precision string

// The precisions of FHIR date, dateTime and instant (R4 §2.24.0.1).
const (
	PrecisionYear   Precision = "year"
	PrecisionMonth  Precision = "month"
	PrecisionDay    Precision = "day"
	PrecisionMinute Precision = "minute"
	PrecisionSecond Precision = "second"
)

// Moment is a FHIR date, dateTime or instant with nothing lost: the text as it came and the span that it may mean.
// [Start, End) is in UTC; a date without a time zone is taken as UTC.
type Moment struct {
	Text      string    `json:"text"`
	Precision Precision `json:"precision"`
	Start     time.Time `json:"start"`
	End       time.Time `json:"end"`
	// OffsetMinutes is the zone that the text carried, nil where it carried none.
	OffsetMinutes *int `json:"offset_minutes,omitempty"`
}

// Period is a FHIR Period; either side may be open.
type Period struct {
	Start *Moment `json:"start,omitempty"`
	End   *Moment `json:"end,omitempty"`
}

// Coding is one code of a code system. Every coding of the source is kept, local ones too.
type Coding struct {
	System       string `json:"system,omitempty"`
	Version      string `json:"version,omitempty"`
	Code         string `json:"code,omitempty"`
	Display      string `json:"display,omitempty"`
	UserSelected bool   `json:"user_selected,omitempty"`
}

// Concept is a FHIR CodeableConcept.
type Concept struct {
	Text    string   `json:"text,omitempty"`
	Codings []Coding `json:"codings,omitempty"`
}

// Identifier is a business identifier: System and Value together name it (R4 Identifier). It is PHI.
type Identifier struct {
	System string `json:"system,omitempty"`
	// Value is without blanks around it; leading zeros stay.
	Value string `json:"value"`
	// Exact is the value as it came where it had blanks around it, empty otherwise.
	Exact  string  `json:"exact,omitempty"`
	Use    string  `json:"use,omitempty"`
	Type   Concept `json:"type,omitzero"`
	Period *Period `json:"period,omitempty"`
}

// Name is a FHIR HumanName. Display is never empty: text, or the parts joined in order.
type Name struct {
	Display string   `json:"display"`
	Use     string   `json:"use,omitempty"`
	Family  string   `json:"family,omitempty"`
	Given   []string `json:"given,omitempty"`
	Prefix  []string `json:"prefix,omitempty"`
	Suffix  []string `json:"suffix,omitempty"`
	Period  *Period  `json:"period,omitempty"`
}

// ContactPoint is a FHIR ContactPoint: a phone number, an e-mail address or the like.
type ContactPoint struct {
	System string  `json:"system,omitempty"`
	Value  string  `json:"value"`
	Use    string  `json:"use,omitempty"`
	Rank   int     `json:"rank,omitempty"`
	Period *Period `json:"period,omitempty"`
}

// Address is a FHIR Address.
type Address struct {
	Use        string   `json:"use,omitempty"`
	Type       string   `json:"type,omitempty"`
	Text       string   `json:"text,omitempty"`
	Lines      []string `json:"lines,omitempty"`
	City       string   `json:"city,omitempty"`
	District   string   `json:"district,omitempty"`
	State      string   `json:"state,omitempty"`
	PostalCode string   `json:"postal_code,omitempty"`
	Country    string   `json:"country,omitempty"`
	Period     *Period  `json:"period,omitempty"`
}

// ProfileLink is a FHIR Patient.link: the other record of the same person.
type ProfileLink struct {
	// Type is replaced-by, replaces, refer or seealso.
	Type         string `json:"type"`
	PatientEHRID string `json:"patient_ehr_id"`
	// PatientBase is as in Record.
	PatientBase string `json:"patient_base,omitempty"`
}

// Profile is a person's demographics.
type Profile struct {
	// Name is the one to show: chosen by use and period (mappings/MAPPINGS.md says how). Nil where none was given.
	Name        *Name          `json:"name,omitempty"`
	OtherNames  []Name         `json:"other_names,omitempty"`
	Identifiers []Identifier   `json:"identifiers,omitempty"`
	BirthDate   *Moment        `json:"birth_date,omitempty"`
	Gender      string         `json:"gender,omitempty"`
	Telecom     []ContactPoint `json:"telecom,omitempty"`
	Addresses   []Address      `json:"addresses,omitempty"`
	// Deceased is nil where the source says nothing.
	Deceased   *bool   `json:"deceased,omitempty"`
	DeceasedAt *Moment `json:"deceased_at,omitempty"`
	// Active is nil where the source says nothing.
	Active *bool         `json:"active,omitempty"`
	Links  []ProfileLink `json:"links,omitempty"`
}

// Allergy is an AllergyIntolerance.
type Allergy struct {
	Code               Concept           `json:"code,omitzero"`
	ClinicalStatus     string            `json:"clinical_status,omitempty"`
	VerificationStatus string            `json:"verification_status,omitempty"`
	Kind               string            `json:"kind,omitempty"`
	Categories         []string          `json:"categories,omitempty"`
	Criticality        string            `json:"criticality,omitempty"`
	Onset              *Moment           `json:"onset,omitempty"`
	OnsetText          string            `json:"onset_text,omitempty"`
	RecordedAt         *Moment           `json:"recorded_at,omitempty"`
	LastOccurrence     *Moment           `json:"last_occurrence,omitempty"`
	Reactions          []AllergyReaction `json:"reactions,omitempty"`
	// NegativeAssertion is true for codes that say "no known allergy": they state an absence, not an allergy.
	NegativeAssertion bool     `json:"negative_assertion,omitempty"`
	EncounterEHRID    string   `json:"encounter_ehr_id,omitempty"`
	Notes             []string `json:"notes,omitempty"`
}

// AllergyReaction is one AllergyIntolerance.reaction.
type AllergyReaction struct {
	Substance      Concept   `json:"substance,omitzero"`
	Manifestations []Concept `json:"manifestations,omitempty"`
	Severity       string    `json:"severity,omitempty"`
	Onset          *Moment   `json:"onset,omitempty"`
	Description    string    `json:"description,omitempty"`
}

// Medication is a MedicationRequest or a MedicationStatement.
type Medication struct {
	// Source is "request" or "statement".
	Source string `json:"source"`
	Status string `json:"status,omitempty"`
	Intent string `json:"intent,omitempty"`
	// Code is the drug: inline, or taken from a contained Medication.
	Code Concept `json:"code,omitzero"`
	// MedicationEHRID is set where the drug is another resource that must be read to be known.
	MedicationEHRID string    `json:"medication_ehr_id,omitempty"`
	Category        []string  `json:"category,omitempty"`
	Reported        bool      `json:"reported,omitempty"`
	AuthoredAt      *Moment   `json:"authored_at,omitempty"`
	Effective       *Period   `json:"effective,omitempty"`
	Dosages         []Dosage  `json:"dosages,omitempty"`
	EncounterEHRID  string    `json:"encounter_ehr_id,omitempty"`
	Reasons         []Concept `json:"reasons,omitempty"`
	Notes           []string  `json:"notes,omitempty"`
}

// Dosage is the part of a FHIR Dosage that people read; the raw resource keeps the rest.
type Dosage struct {
	Text      string    `json:"text,omitempty"`
	AsNeeded  *bool     `json:"as_needed,omitempty"`
	Route     Concept   `json:"route,omitzero"`
	Dose      *Quantity `json:"dose,omitempty"`
	DoseRange *Range    `json:"dose_range,omitempty"`
	Timing    string    `json:"timing,omitempty"`
}

// Quantity keeps the digits of the source: Value is FHIR decimal text, never a float.
type Quantity struct {
	Value json.Number `json:"value,omitempty"`
	// Comparator is <, <=, >=, > or empty; a value with a comparator is a bound, not a measurement.
	Comparator string `json:"comparator,omitempty"`
	Unit       string `json:"unit,omitempty"`
	System     string `json:"system,omitempty"`
	Code       string `json:"code,omitempty"`
}

// Range is a FHIR Range.
type Range struct {
	Low  *Quantity `json:"low,omitempty"`
	High *Quantity `json:"high,omitempty"`
}

// Ratio is a FHIR Ratio.
type Ratio struct {
	Numerator   *Quantity `json:"numerator,omitempty"`
	Denominator *Quantity `json:"denominator,omitempty"`
}

// ObservationValue is Observation.value[x]: Kind names the variant and one field holds it.
type ObservationValue struct {
	// Kind is quantity, concept, string, boolean, integer, range, ratio, sampled-data, time, date-time or period.
	Kind     string    `json:"kind"`
	Quantity *Quantity `json:"quantity,omitempty"`
	Concept  *Concept  `json:"concept,omitempty"`
	// Text holds string, time and sampled-data values as they came.
	Text    string      `json:"text,omitempty"`
	Boolean *bool       `json:"boolean,omitempty"`
	Integer json.Number `json:"integer,omitempty"`
	Range   *Range      `json:"range,omitempty"`
	Ratio   *Ratio      `json:"ratio,omitempty"`
	Moment  *Moment     `json:"moment,omitempty"`
	Period  *Period     `json:"period,omitempty"`
}

// ReferenceRange is one Observation.referenceRange.
type ReferenceRange struct {
	Low       *Quantity `json:"low,omitempty"`
	High      *Quantity `json:"high,omitempty"`
	Type      Concept   `json:"type,omitzero"`
	AppliesTo []Concept `json:"applies_to,omitempty"`
	Age       *Range    `json:"age,omitempty"`
	Text      string    `json:"text,omitempty"`
}

// LabObservation is an Observation: a laboratory result, a vital sign or a finding.
type LabObservation struct {
	Status     string    `json:"status"`
	Categories []Concept `json:"categories,omitempty"`
	Code       Concept   `json:"code"`
	// Analyte is a stable name for what Cura treats specially: "hemoglobin-a1c", "blood-pressure"; empty otherwise.
	Analyte          string                 `json:"analyte,omitempty"`
	Value            *ObservationValue      `json:"value,omitempty"`
	DataAbsentReason Concept                `json:"data_absent_reason,omitzero"`
	Interpretations  []Concept              `json:"interpretations,omitempty"`
	ReferenceRanges  []ReferenceRange       `json:"reference_ranges,omitempty"`
	Components       []ObservationComponent `json:"components,omitempty"`
	// Effective is effectiveDateTime or effectiveInstant; EffectivePeriod and EffectiveTiming are its other variants.
	Effective       *Moment  `json:"effective,omitempty"`
	EffectivePeriod *Period  `json:"effective_period,omitempty"`
	EffectiveTiming string   `json:"effective_timing,omitempty"`
	IssuedAt        *Moment  `json:"issued_at,omitempty"`
	Method          Concept  `json:"method,omitzero"`
	BodySite        Concept  `json:"body_site,omitzero"`
	EncounterEHRID  string   `json:"encounter_ehr_id,omitempty"`
	MemberEHRIDs    []string `json:"member_ehr_ids,omitempty"`
	Notes           []string `json:"notes,omitempty"`
}

// ObservationComponent is one Observation.component, such as the systolic pressure of a blood-pressure panel.
type ObservationComponent struct {
	Code             Concept           `json:"code"`
	Analyte          string            `json:"analyte,omitempty"`
	Value            *ObservationValue `json:"value,omitempty"`
	DataAbsentReason Concept           `json:"data_absent_reason,omitzero"`
	Interpretations  []Concept         `json:"interpretations,omitempty"`
	ReferenceRanges  []ReferenceRange  `json:"reference_ranges,omitempty"`
}

// Visit is an Encounter.
type Visit struct {
	Status       string        `json:"status"`
	Class        Coding        `json:"class,omitzero"`
	Types        []Concept     `json:"types,omitempty"`
	ServiceType  Concept       `json:"service_type,omitzero"`
	Priority     Concept       `json:"priority,omitzero"`
	Identifiers  []Identifier  `json:"identifiers,omitempty"`
	Period       *Period       `json:"period,omitempty"`
	Reasons      []Concept     `json:"reasons,omitempty"`
	Participants []Participant `json:"participants,omitempty"`
	Locations    []string      `json:"locations,omitempty"`
	Provider     string        `json:"provider,omitempty"`
	Discharge    Concept       `json:"discharge,omitzero"`
	PartOfEHRID  string        `json:"part_of_ehr_id,omitempty"`
}

// Participant is one Encounter.participant.
type Participant struct {
	Roles   []Concept `json:"roles,omitempty"`
	Display string    `json:"display,omitempty"`
	// EHRID is Type/id, since a participant is a Practitioner, a PractitionerRole or a RelatedPerson.
	EHRID  string  `json:"ehr_id,omitempty"`
	Period *Period `json:"period,omitempty"`
}

// ConsentEntry is a Consent, as it stands in the append-only consent log. Provision is kept whole as FHIR JSON: the
// decision rules read it, the mapping doesn't interpret it.
type ConsentEntry struct {
	Status     string          `json:"status"`
	Scope      Concept         `json:"scope,omitzero"`
	Categories []Concept       `json:"categories,omitempty"`
	DateTime   *Moment         `json:"date_time,omitempty"`
	PolicyRule Concept         `json:"policy_rule,omitzero"`
	PolicyURIs []string        `json:"policy_uris,omitempty"`
	Performers []string        `json:"performers,omitempty"`
	RootType   string          `json:"root_type,omitempty"`
	Period     *Period         `json:"period,omitempty"`
	Provision  json.RawMessage `json:"provision,omitempty"`
	// ModifierExtension: the resource has one outside the provision, which may change the meaning of all of it.
	ModifierExtension bool `json:"modifier_extension,omitempty"`
}
