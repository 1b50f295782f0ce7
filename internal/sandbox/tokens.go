package sandbox

import (
	"bytes"
	"slices"
	"strings"
	"unique"
)

// indexOf lists what a resource can be searched by, and tells which time it is about. Shapes that are not FHIR's are
// passed over: what is served may be invalid on purpose.
func indexOf(typ string, raw []byte) ([]unique.Handle[token], dateSpan) {
	var out []token
	var when dateSpan
	for _, m := range members(raw) {
		value := raw[m.value.start:m.value.end]
		if isDateOf(typ, m.key) {
			when = spanOf(value)
			continue
		}
		switch m.key {
		case "patient", "subject":
			ref := localReference(getText(value, "reference"))
			if ref == "" {
				continue
			}
			if m.key == "subject" {
				out = append(out, token{kind: bySubject, code: ref})
			}
			if strings.HasPrefix(ref, "Patient/") {
				out = append(out, token{kind: byPatient, code: ref})
			}
		case "status", "intent":
			if typ == "MedicationRequest" || slices.Contains(writableTypes(), typ) {
				out = append(out, token{kind: codeKind(m.key), code: textOf(value)})
			}
		case "clinicalStatus":
			if typ == "Condition" {
				out = append(out, conceptTokens(byStatus, typ, value)...)
			}
		case "type":
			if typ == "DocumentReference" {
				out = append(out, conceptTokens(byType, typ, value)...)
			}
		case "encounter", "context":
			if slices.Contains(writableTypes(), typ) {
				out = append(out, encounterTokens(typ, value)...)
			}
		case "gender", "name":
			if typ == "Patient" {
				out = append(out, personTokens(value)...)
			}
		case "category":
			out = append(out, conceptTokens(byCategory, typ, value)...)
		case "code", "medicationCodeableConcept":
			out = append(out, conceptTokens(byCode, typ, value)...)
		case "identifier":
			for _, item := range oneOrMany(value) {
				if v := getText(item, "value"); v != "" {
					out = append(out, token{byIdentifier, getText(item, "system"), v})
				}
			}
		}
	}
	handles := make([]unique.Handle[token], 0, len(out))
	for _, t := range out {
		if h := unique.Make(t); !slices.Contains(handles, h) {
			handles = append(handles, h)
		}
	}
	return handles, when
}

// isDateOf tells whether a member is what the date parameter of its type is about, or birthdate of Patient.
func isDateOf(typ, key string) bool {
	switch typ {
	case "Observation", "DiagnosticReport":
		return key == "effectiveDateTime" || key == "effectivePeriod" || key == "effectiveInstant"
	case "Procedure":
		return key == "performedDateTime" || key == "performedPeriod"
	case "Encounter":
		return key == "period"
	case "DocumentReference":
		return key == "date"
	case "Condition":
		return key == "recordedDate"
	case "Consent":
		return key == "dateTime"
	case "Patient":
		return key == "birthDate"
	default:
		return false
	}
}

// encounterTokens are the Encounters that a resource belongs to: value is its encounter, or a DocumentReference's context.
func encounterTokens(typ string, value []byte) []token {
	if typ == "DocumentReference" {
		value = get(value, "encounter")
	}
	var out []token
	for _, item := range oneOrMany(value) {
		if ref := localReference(getText(item, "reference")); ref != "" {
			out = append(out, token{kind: byEncounter, code: ref})
		}
	}
	return out
}

// codeKind is the kind of a parameter that is a plain code.
func codeKind(param string) tokenKind {
	switch param {
	case "intent":
		return byIntent
	case "gender":
		return byGender
	default:
		return byStatus
	}
}

// personTokens are a Patient's gender, or the parts of a Patient's names in lower case.
func personTokens(value []byte) []token {
	if gender := textOf(value); gender != "" {
		return []token{{kind: byGender, code: gender}}
	}
	var out []token
	for _, name := range oneOrMany(value) {
		if family := getText(name, "family"); family != "" {
			out = append(out, token{kind: byFamily, code: strings.ToLower(family)})
		}
		given := get(name, "given")
		for _, at := range elements(given) {
			out = append(out, token{kind: byGiven, code: strings.ToLower(textOf(given[at.start:at.end]))})
		}
	}
	return out
}

// allergyCategory is the implicit system of AllergyIntolerance.category, which is a code and no CodeableConcept.
const allergyCategory = "http://hl7.org/fhir/allergy-intolerance-category"

func conceptTokens(kind tokenKind, typ string, value []byte) []token {
	var out []token
	for _, item := range oneOrMany(value) {
		if code := textOf(item); code != "" && typ == "AllergyIntolerance" {
			out = append(out, token{kind, allergyCategory, code})
		}
		codings := get(item, "coding")
		for _, s := range elements(codings) {
			coding := codings[s.start:s.end]
			if code := getText(coding, "code"); code != "" {
				out = append(out, token{kind, getText(coding, "system"), code})
			}
		}
	}
	return out
}

// oneOrMany gives the elements of an array, or the value itself.
func oneOrMany(value []byte) [][]byte {
	if !bytes.HasPrefix(value, []byte("[")) {
		return [][]byte{value}
	}
	var out [][]byte
	for _, s := range elements(value) {
		out = append(out, value[s.start:s.end])
	}
	return out
}

// localReference shortens a reference to "Type/id": a version and what stands before the type are cut off. It is ""
// for references that name no resource of a server (#contained, urn:uuid:, conditional ones).
func localReference(ref string) string {
	if ref == "" || strings.ContainsAny(ref, "#?") || strings.HasPrefix(ref, "urn:") {
		return ""
	}
	ref, _, _ = strings.Cut(ref, "/_history/")
	parts := strings.Split(ref, "/")
	if len(parts) < 2 {
		return ""
	}
	return strings.Join(parts[len(parts)-2:], "/")
}
