package mappings

import (
	"encoding/json"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// mapMedicationRequest maps a MedicationRequest.
func mapMedicationRequest(m *mapper, r *r4.MedicationRequest) cura.Record {
	status := m.status(r.Status, "active", "on-hold", "cancelled", "completed", "stopped", "draft", "unknown")
	record := m.recordOf(&r.Resource, "subject", r.Subject)
	medication := cura.Medication{
		Source:         "request",
		Status:         status,
		Intent:         r.Intent,
		Category:       words(r.Category...),
		Reported:       r.ReportedReference != nil || r.ReportedBoolean != nil && *r.ReportedBoolean,
		AuthoredAt:     m.moment("authoredOn", r.AuthoredOn),
		Dosages:        dosages(r.DosageInstruction),
		EncounterEHRID: m.id("Encounter", r.Encounter),
		Reasons:        reasons(r.ReasonCode, r.ReasonReference),
		Notes:          notes(r.Note),
	}
	m.drug(&medication, r.MedicationCodeableConcept, r.MedicationReference, r.Contained)
	record.Medication = &medication
	return record
}

// mapMedicationStatement maps a MedicationStatement.
func mapMedicationStatement(m *mapper, s *r4.MedicationStatement) cura.Record {
	status := m.status(s.Status, "active", "completed", "intended", "stopped", "on-hold", "unknown", "not-taken")
	record := m.recordOf(&s.Resource, "subject", s.Subject)
	medication := cura.Medication{
		Source:         "statement",
		Status:         status,
		Category:       words(s.Category),
		AuthoredAt:     m.moment("dateAsserted", s.DateAsserted),
		Effective:      m.period("effectivePeriod", s.EffectivePeriod),
		Dosages:        dosages(s.Dosage),
		EncounterEHRID: m.id("Encounter", s.Context),
		Reasons:        reasons(s.ReasonCode, s.ReasonReference),
		Notes:          notes(s.Note),
	}
	if at := m.moment("effectiveDateTime", s.EffectiveDateTime); at != nil {
		medication.Effective = &cura.Period{Start: at, End: at}
	}
	m.drug(&medication, s.MedicationCodeableConcept, s.MedicationReference, s.Contained)
	record.Medication = &medication
	return record
}

// drug maps medication[x]: a code, the code of a contained Medication, or the id of another resource that names the drug.
func (m *mapper) drug(to *cura.Medication, code *r4.CodeableConcept, ref *r4.Reference, contained []json.RawMessage) {
	before := len(m.reasons)
	switch {
	case code != nil:
		to.Code = concept(*code)
	case ref != nil:
		fragment, isContained := strings.CutPrefix(ref.Reference, "#")
		if isContained {
			to.Code = m.containedDrug(fragment, contained)
		} else {
			to.MedicationEHRID = m.id("Medication", *ref)
		}
		if to.Code.Text == "" && len(to.Code.Codings) == 0 {
			// All that people can read until the Medication itself is read, if there is one.
			if to.Code.Text = ref.Display; to.MedicationEHRID == "" {
				to.Code.Text = m.label(*ref)
			}
		}
	}
	named := to.Code.Text != "" || len(to.Code.Codings) > 0 || to.MedicationEHRID != ""
	if !named && !m.withdrawn && !isAbsent(code) && len(m.reasons) == before {
		m.reject(m.path("medication[x]"), "names no drug")
	}
}

// isAbsent reports whether a code says why it isn't known.
func isAbsent(code *r4.CodeableConcept) bool {
	if code == nil {
		return false
	}
	_, absent := conceptAbsence(*code)
	return absent
}

// containedDrug gives the code of the contained Medication with that id.
func (m *mapper) containedDrug(id string, contained []json.RawMessage) cura.Concept {
	for i, raw := range contained {
		var head r4.Resource
		if json.Unmarshal(raw, &head) != nil || head.ID != id || head.ResourceType != "Medication" {
			continue
		}
		var drug r4.Medication
		if json.Unmarshal(raw, &drug) != nil {
			m.reject(m.path(at("contained", i)), "isn't a Medication that can be read")
			return cura.Concept{}
		}
		if code := concept(drug.Code); code.Text != "" || len(code.Codings) > 0 {
			return code
		}
		return cura.Concept{Text: compound(drug.Ingredient)}
	}
	m.reject(m.path("medicationReference"), "refers to a contained Medication that isn't there")
	return cura.Concept{}
}

// compound names a drug without a code of its own by its ingredients.
func compound(ingredients []r4.MedicationIngredient) string {
	var texts []string
	for _, i := range ingredients {
		text := i.ItemCodeableConcept.Text
		for _, c := range i.ItemCodeableConcept.Coding {
			if text == "" {
				text = c.Display
			}
		}
		if text == "" {
			text = i.ItemReference.Display
		}
		if text != "" {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, " + ")
}

// dosages maps the part of each Dosage that people read. Of several doses the first one counts, ordered before calculated as
// the source lists them.
func dosages(from []r4.Dosage) []cura.Dosage {
	var out []cura.Dosage
	for _, d := range from {
		to := cura.Dosage{
			Text: d.Text, AsNeeded: d.AsNeededBoolean, Route: concept(d.Route), Timing: timing(d.Timing),
		}
		if d.AsNeededCodeableConcept != nil {
			yes := true
			to.AsNeeded = &yes
		}
		for _, dose := range d.DoseAndRate {
			to.Dose, to.DoseRange = quantity(dose.DoseQuantity), rangeOf(dose.DoseRange)
			if to.Dose != nil || to.DoseRange != nil {
				break
			}
		}
		out = append(out, to)
	}
	return out
}
