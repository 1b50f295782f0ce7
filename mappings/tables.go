package mappings

import (
	"fmt"
	"io"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// table documents the mapping of one resource, and drives its Preview.
type table struct {
	Type cura.ResourceType
	// Into is Cura's name for what the resource becomes; it begins every field.
	Into string
	Rows []row
}

// row maps one FHIR element to one Cura field.
type row struct {
	// Element is a path below the resource; [x] stands for the kind of a choice. Lists are walked through.
	Element string
	// Field is a path below Into, made of the JSON names of cura's structs.
	Field string
	// How says what happens on the way, where it isn't copied as it is.
	How string
	// Derived marks a field that says something about the element. Preview shows it only where it is set.
	Derived bool
}

const (
	howMoment    = "text, precision and span are kept (see Dates)"
	howReference = "id of Type/id on the patient's own server"
	howPatient   = "must lead to Patient/id (see References)"
	howConcept   = "every coding and the text"
	howContained = "code of the contained Medication, else its ingredients in words; or the reference's display"
	howWithdrawn = "entered-in-error marks the row; it is never deleted"
)

// common lists what is mapped of every resource.
func common(withdrawn string) []row {
	rows := []row{
		{Element: "id", Field: "ehr_id"},
		{Element: "meta.versionId", Field: "version_id", How: "opaque; often absent"},
		{Element: "meta.lastUpdated", Field: "last_updated", How: "in UTC; often absent"},
	}
	if withdrawn != "" {
		rows = append(rows, row{Element: withdrawn, Field: "entered_in_error", How: howWithdrawn, Derived: true})
	}
	return rows
}

// tables lists the mappings in the order of cura.ResourceTypes.
func tables() []table {
	return []table{
		patientTable(), allergyTable(), medicationRequestTable(), medicationStatementTable(), observationTable(),
		encounterTable(), consentTable(),
	}
}

// tableOf finds the table of a type.
func tableOf(t cura.ResourceType) (table, bool) {
	for _, table := range tables() {
		if table.Type == t {
			return table, true
		}
	}
	return table{}, false
}

func patientTable() table {
	return table{Type: cura.Patient, Into: "profiles", Rows: append(common(""), []row{
		{Element: "name", Field: "name", How: "the name to show (see Names)"},
		{Element: "name", Field: "other_names", How: "all the others, in their order", Derived: true},
		{Element: "identifier", Field: "identifiers", How: "every system and value: the match strategy of the connection finds the cura_id or links them (see Identifiers)"},
		{Element: "birthDate", Field: "birth_date", How: howMoment},
		{Element: "gender", Field: "gender", How: "administrative gender, not birth sex"},
		{Element: "telecom", Field: "telecom", How: "those with a value"},
		{Element: "address", Field: "addresses"},
		{Element: "deceasedBoolean", Field: "deceased"},
		{Element: "deceasedDateTime", Field: "deceased", How: "a date of death says that the patient is deceased"},
		{Element: "deceasedDateTime", Field: "deceased_at", How: howMoment},
		{Element: "active", Field: "active"},
		{Element: "link", Field: "links", How: "links to a Patient with their type; a replaced-by that leads to none is rejected; a RelatedPerson stays raw"},
	}...)}
}

func allergyTable() table {
	return table{Type: cura.AllergyIntolerance, Into: "allergies", Rows: append(common("verificationStatus"), []row{
		{Element: "patient", Field: "patient_ehr_id", How: howPatient},
		{Element: "encounter", Field: "encounter_ehr_id", How: howReference},
		{Element: "code", Field: "code", How: howConcept},
		{Element: "code", Field: "negative_assertion", How: "true for SNOMED CT codes that state the absence of allergies (see Absence of allergies)", Derived: true},
		{Element: "clinicalStatus", Field: "clinical_status", How: "code of HL7's system"},
		{Element: "verificationStatus", Field: "verification_status", How: "code of HL7's system"},
		{Element: "type", Field: "kind"},
		{Element: "category", Field: "categories"},
		{Element: "criticality", Field: "criticality"},
		{Element: "onsetDateTime", Field: "onset", How: howMoment},
		{Element: "onsetPeriod", Field: "onset", How: "its start"},
		{Element: "onset[x]", Field: "onset_text", How: "age, range, period or string in words", Derived: true},
		{Element: "recordedDate", Field: "recorded_at", How: howMoment},
		{Element: "lastOccurrence", Field: "last_occurrence", How: howMoment},
		{Element: "reaction.substance", Field: "reactions.substance", How: howConcept},
		{Element: "reaction.manifestation", Field: "reactions.manifestations", How: howConcept},
		{Element: "reaction.severity", Field: "reactions.severity"},
		{Element: "reaction.onset", Field: "reactions.onset", How: howMoment},
		{Element: "reaction.description", Field: "reactions.description"},
		{Element: "note", Field: "notes", How: "text"},
	}...)}
}

// dosageRows documents a Dosage.
func dosageRows(element string) []row {
	return []row{
		{Element: element + ".text", Field: "dosages.text"},
		{Element: element + ".asNeeded[x]", Field: "dosages.as_needed", How: "a reason to take it as needed counts as true"},
		{Element: element + ".route", Field: "dosages.route", How: howConcept},
		{Element: element + ".doseAndRate.doseQuantity", Field: "dosages.dose", How: "of the first dose; digits are kept"},
		{Element: element + ".doseAndRate.doseRange", Field: "dosages.dose_range", How: "of the first dose"},
		{Element: element + ".timing", Field: "dosages.timing", How: "code, else schedule in words"},
	}
}

func medicationRequestTable() table {
	rows := append(common("status"), []row{
		{Element: "resourceType", Field: "source", How: "request", Derived: true},
		{Element: "subject", Field: "patient_ehr_id", How: howPatient},
		{Element: "encounter", Field: "encounter_ehr_id", How: howReference},
		{Element: "status", Field: "status"},
		{Element: "intent", Field: "intent"},
		{Element: "medicationCodeableConcept", Field: "code", How: howConcept},
		{Element: "medicationReference", Field: "code", How: howContained, Derived: true},
		{Element: "medicationReference", Field: "medication_ehr_id", How: "id of a Medication that must be read to be known", Derived: true},
		{Element: "category", Field: "category", How: "code, else text"},
		{Element: "reported[x]", Field: "reported", How: "a reference counts as true"},
		{Element: "authoredOn", Field: "authored_at", How: howMoment},
	}...)
	rows = append(rows, dosageRows("dosageInstruction")...)
	return table{Type: cura.MedicationRequest, Into: "medications", Rows: append(rows, []row{
		{Element: "reasonCode", Field: "reasons", How: howConcept},
		{Element: "reasonReference", Field: "reasons", How: "display text", Derived: true},
		{Element: "note", Field: "notes", How: "text"},
	}...)}
}

func medicationStatementTable() table {
	rows := append(common("status"), []row{
		{Element: "resourceType", Field: "source", How: "statement", Derived: true},
		{Element: "subject", Field: "patient_ehr_id", How: howPatient},
		{Element: "context", Field: "encounter_ehr_id", How: howReference + ", where it is an Encounter"},
		{Element: "status", Field: "status"},
		{Element: "medicationCodeableConcept", Field: "code", How: howConcept},
		{Element: "medicationReference", Field: "code", How: howContained, Derived: true},
		{Element: "medicationReference", Field: "medication_ehr_id", How: "id of a Medication that must be read to be known", Derived: true},
		{Element: "category", Field: "category", How: "code, else text"},
		{Element: "effectiveDateTime", Field: "effective", How: "start and end are that moment"},
		{Element: "effectivePeriod", Field: "effective", How: howMoment},
		{Element: "dateAsserted", Field: "authored_at", How: howMoment},
	}...)
	rows = append(rows, dosageRows("dosage")...)
	return table{Type: cura.MedicationStatement, Into: "medications", Rows: append(rows, []row{
		{Element: "reasonCode", Field: "reasons", How: howConcept},
		{Element: "reasonReference", Field: "reasons", How: "display text", Derived: true},
		{Element: "note", Field: "notes", How: "text"},
	}...)}
}

// measureRows documents what an Observation and its components share.
func measureRows(element, field string) []row {
	return []row{
		{Element: element + "code", Field: field + "code", How: howConcept + "; local codes too"},
		{Element: element + "code", Field: field + "analyte", How: "stable name for some LOINC codes (see Analytes)", Derived: true},
		{Element: element + "value[x]", Field: field + "value", How: "all eleven kinds; digits and comparator are kept (see Values)"},
		{Element: element + "dataAbsentReason", Field: field + "data_absent_reason", How: "or the data-absent-reason extension on the value or in it"},
		{Element: element + "interpretation", Field: field + "interpretations", How: howConcept},
		{Element: element + "referenceRange", Field: field + "reference_ranges", How: "low, high, type, applies-to, age and text"},
	}
}

func observationTable() table {
	rows := append(common("status"), []row{
		{Element: "subject", Field: "patient_ehr_id", How: howPatient + "; of a Group, Device or Location it is rejected"},
		{Element: "encounter", Field: "encounter_ehr_id", How: howReference},
		{Element: "status", Field: "status", How: "unknown where a data-absent-reason extension stands in for it"},
		{Element: "category", Field: "categories", How: howConcept},
	}...)
	rows = append(rows, measureRows("", "")...)
	rows = append(rows, measureRows("component.", "components.")...)
	return table{Type: cura.Observation, Into: "labs.observations", Rows: append(rows, []row{
		{Element: "effectiveDateTime", Field: "effective", How: howMoment},
		{Element: "effectiveInstant", Field: "effective", How: howMoment},
		{Element: "effectivePeriod", Field: "effective_period", How: howMoment},
		{Element: "effectiveTiming", Field: "effective_timing", How: "code, else schedule in words"},
		{Element: "issued", Field: "issued_at", How: howMoment},
		{Element: "method", Field: "method", How: howConcept},
		{Element: "bodySite", Field: "body_site", How: howConcept},
		{Element: "hasMember", Field: "member_ehr_ids", How: howReference + ", where it is an Observation"},
		{Element: "note", Field: "notes", How: "text"},
	}...)}
}

func encounterTable() table {
	return table{Type: cura.Encounter, Into: "visits", Rows: append(common("status"), []row{
		{Element: "subject", Field: "patient_ehr_id", How: howPatient},
		{Element: "status", Field: "status"},
		{Element: "class", Field: "class"},
		{Element: "type", Field: "types", How: howConcept},
		{Element: "serviceType", Field: "service_type", How: howConcept},
		{Element: "priority", Field: "priority", How: howConcept},
		{Element: "identifier", Field: "identifiers", How: "every system and value (see Identifiers)"},
		{Element: "period", Field: "period", How: howMoment},
		{Element: "reasonCode", Field: "reasons", How: howConcept},
		{Element: "reasonReference", Field: "reasons", How: "display text", Derived: true},
		{Element: "participant.type", Field: "participants.roles", How: howConcept},
		{Element: "participant.individual", Field: "participants.display", How: "display"},
		{Element: "participant.individual", Field: "participants.ehr_id", How: "Type/id on the patient's own server", Derived: true},
		{Element: "participant.period", Field: "participants.period", How: howMoment},
		{Element: "location.location", Field: "locations", How: "display, else identifier, else Type/id"},
		{Element: "serviceProvider", Field: "provider", How: "display, else identifier, else Type/id"},
		{Element: "hospitalization.dischargeDisposition", Field: "discharge", How: howConcept},
		{Element: "partOf", Field: "part_of_ehr_id", How: howReference},
	}...)}
}

func consentTable() table {
	return table{Type: cura.Consent, Into: "consent_log", Rows: append(common("status"), []row{
		{Element: "patient", Field: "patient_ehr_id", How: howPatient},
		{Element: "status", Field: "status"},
		{Element: "scope", Field: "scope", How: howConcept},
		{Element: "category", Field: "categories", How: howConcept},
		{Element: "dateTime", Field: "date_time", How: howMoment},
		{Element: "policyRule", Field: "policy_rule", How: howConcept},
		{Element: "policy.uri", Field: "policy_uris"},
		{Element: "performer", Field: "performers", How: "display, else identifier, else Type/id"},
		{Element: "provision.type", Field: "root_type"},
		{Element: "provision.period", Field: "period", How: howMoment},
		{Element: "provision", Field: "provision", How: "kept whole as FHIR JSON; the decision rules read it"},
		{Element: "modifierExtension", Field: "modifier_extension", How: "true where there is one outside the provision: then the consent can't be evaluated"},
	}...)}
}

// rule is a section of MAPPINGS.md about what several elements share.
type rule struct{ Title, Text string }

func rules() []rule {
	return []rule{
		{"Dates", "A date, dateTime or instant keeps its text, its precision (year, month, day, minute, second), its zone offset, and the span " +
			"[start, end) in UTC that it may mean: a month is a month long, a second a second, a fraction one unit of its last digit down to a microsecond. A date " +
			"counts as UTC. A time without a zone, a date that no calendar has and year 0 are rejected. What reaches beyond year 9999 ends there."},
		{"Numbers", "Decimals keep their digits: 5.40 stays 5.40. They are never floating point."},
		{"Names", "The name to show is, of the names in force, the first by use: official, usual, none, nickname, anonymous, temp, old, maiden; then by order. In " +
			"force means that the period holds at meta.lastUpdated; without meta.lastUpdated, that the period has no end. A mapping knows no \"now\", so that " +
			"the same resource always maps the same way. Where no name is in force, the best of the others is shown. A name's display is its text, or prefix, given, family " +
			"and suffix in that order. Names without any part are dropped."},
		{"Identifiers", "Every identifier with a value is kept with its system; the type alone never tells what an identifier is. Blanks around a value are cut and the " +
			"value as it came is kept beside it in `exact`. Leading zeros stay. An identifier without a value (as where rendered-value shows a masked number) is skipped: " +
			"there is nothing to match by."},
		{"References", "The patient must be named by Patient/id, relative or as an absolute URL, with or without a version. An absolute URL's base is kept in the " +
			"record (`PatientBase`), since ids are unique under one base only: the pull compares it with the connection's. A urn, a contained resource, an identifier or a display " +
			"alone is rejected, as is a subject that isn't a patient. Other references give an id only where they lead to the same server."},
		{"Values", "Observation.value[x] becomes `kind` and one field: quantity, concept, string, boolean, integer, range, ratio, sampled-data (as JSON), time, date-time, " +
			"period. A comparator (<, <=, >=, >) stays with its quantity. Units are kept as they came; nothing is converted."},
		{"Entered in error", "A resource that is entered-in-error is mapped and marked, never deleted. It may lack what is required otherwise, except for its id and its patient."},
		{"Rejections", "A resource that can't be mapped goes to quarantine with reasons that name elements and hold no value. Statuses, gender and link types must be codes of " +
			"their value set in its spelling."},
		{"Not mapped", "Everything else stays in the raw resource, which is kept as received: extensions such as race and ethnicity, contacts, narrative, attachments."},
	}
}

// WriteTables writes MAPPINGS.md: the tables that drive Preview, and the rules that elements share. The error is w's.
func WriteTables(w io.Writer) error {
	var b strings.Builder
	b.WriteString("<!-- Made by go generate ./mappings. Change the tables in the code, not this file. -->\n\n# Mappings\n\n")
	fmt.Fprintf(&b, "How FHIR R4 resources become Cura's records. Version of the mappings: %s.\n", Version)
	for _, t := range tables() {
		fmt.Fprintf(&b, "\n## %s → %s\n\n| FHIR element | Cura field | How |\n|---|---|---|\n", t.Type, t.Into)
		for _, r := range t.Rows {
			fmt.Fprintf(&b, "| %s.%s | %s.%s | %s |\n", t.Type, r.Element, t.Into, r.Field, strings.ReplaceAll(r.How, "|", `\|`))
		}
	}
	b.WriteString("\n## Rules\n")
	for _, r := range rules() {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", r.Title, r.Text)
	}
	b.WriteString("\n### Analytes\n\nBy any coding of system " + systemLOINC + " (or " + systemLOINCOID + "). Nothing is converted: the unit stays beside the value.\n\n" +
		"| LOINC | Analyte | Meaning |\n|---|---|---|\n")
	for _, a := range analytes() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", a.Code, a.Analyte, a.Meaning)
	}
	b.WriteString("\n### Absence of allergies\n\nBy any coding of system " + systemSNOMED + " (or " + systemSNOMEDOID + ").\n\n| SNOMED CT | Meaning |\n|---|---|\n")
	for _, n := range negativeAssertions() {
		fmt.Fprintf(&b, "| %s | %s |\n", n.Code, n.Meaning)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	if err := WriteOverrides(w); err != nil {
		return err
	}
	return WriteOutgoing(w)
}
