package mappings

import (
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// mapAllergy maps an AllergyIntolerance.
func mapAllergy(m *mapper, a *r4.AllergyIntolerance) cura.Record {
	verification := codeIn(a.VerificationStatus, systemVerification)
	m.withdrawn = verification == "entered-in-error"
	if verification != "" && !m.withdrawn {
		m.code("verificationStatus", verification, "unconfirmed", "confirmed", "refuted", "presumed")
	}
	record := m.recordOf(&a.Resource, "patient", a.Patient)
	allergy := cura.Allergy{
		Code:               concept(a.Code),
		ClinicalStatus:     codeIn(a.ClinicalStatus, systemClinical),
		VerificationStatus: verification,
		Kind:               a.Type,
		Categories:         present(a.Category),
		Criticality:        a.Criticality,
		Onset:              m.moment("onsetDateTime", a.OnsetDateTime),
		OnsetText:          a.OnsetString,
		RecordedAt:         m.moment("recordedDate", a.RecordedDate),
		LastOccurrence:     m.moment("lastOccurrence", a.LastOccurrence),
		NegativeAssertion:  statesNoAllergy(a.Code),
		EncounterEHRID:     m.id("Encounter", a.Encounter),
		Notes:              notes(a.Note),
	}
	switch {
	case a.OnsetPeriod != nil:
		if p := m.period("onsetPeriod", a.OnsetPeriod); p != nil {
			allergy.Onset = p.Start
		}
		allergy.OnsetText = spanText(a.OnsetPeriod.Start, a.OnsetPeriod.End)
	case a.OnsetAge != nil:
		allergy.OnsetText = "age " + quantityText(a.OnsetAge)
	case a.OnsetRange != nil:
		allergy.OnsetText = "age " + spanText(quantityText(a.OnsetRange.Low), quantityText(a.OnsetRange.High))
	}
	for i, r := range a.Reaction {
		allergy.Reactions = append(allergy.Reactions, cura.AllergyReaction{
			Substance:      concept(r.Substance),
			Manifestations: concepts(r.Manifestation),
			Severity:       r.Severity,
			Onset:          m.moment(at("reaction", i)+".onset", r.Onset),
			Description:    r.Description,
		})
	}
	record.Allergy = &allergy
	return record
}

// negativeAssertions lists the SNOMED CT codes that state the absence of allergies.
func negativeAssertions() []struct{ Code, Meaning string } {
	return []struct{ Code, Meaning string }{
		{"716186003", "No known allergy"},
		{"160244002", "No known allergies, the retired concept"},
		{"409137002", "No known drug allergy"},
		{"428197003", "No known insect allergy"},
		{"428607008", "No known environmental allergy"},
		{"429625007", "No known food allergy"},
		{"716184000", "No known latex allergy"},
		{"1003774007", "No known Hevea brasiliensis latex allergy"},
		{"716220001", "No known animal allergy"},
	}
}

// statesNoAllergy reports whether a code says that there is no allergy: an absence, not an allergy.
func statesNoAllergy(c r4.CodeableConcept) bool {
	for _, coding := range c.Coding {
		if coding.System != systemSNOMED && coding.System != systemSNOMEDOID {
			continue
		}
		for _, n := range negativeAssertions() {
			if coding.Code == n.Code {
				return true
			}
		}
	}
	return false
}
