package mappings

import (
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// mapEncounter maps an Encounter to a visit.
func mapEncounter(m *mapper, e *r4.Encounter) cura.Record {
	status := m.status(e.Status,
		"planned", "arrived", "triaged", "in-progress", "onleave", "finished", "cancelled", "unknown")
	record := m.recordOf(&e.Resource, "subject", e.Subject)
	visit := cura.Visit{
		Status:      status,
		Class:       coding(e.Class),
		Types:       concepts(e.Type),
		ServiceType: concept(e.ServiceType),
		Priority:    concept(e.Priority),
		Identifiers: m.identifiers(e.Identifier),
		Period:      m.period("period", e.Period),
		Reasons:     reasons(e.ReasonCode, e.ReasonReference),
		Provider:    m.label(e.ServiceProvider),
		Discharge:   concept(e.Hospitalization.DischargeDisposition),
		PartOfEHRID: m.id(string(cura.Encounter), e.PartOf),
	}
	for i, p := range e.Participant {
		visit.Participants = append(visit.Participants, cura.Participant{
			Roles:   concepts(p.Type),
			Display: p.Individual.Display,
			EHRID:   m.typedID(p.Individual),
			Period:  m.period(at("participant", i)+".period", p.Period),
		})
	}
	for _, l := range e.Location {
		if label := m.label(l.Location); label != "" {
			visit.Locations = append(visit.Locations, label)
		}
	}
	record.Visit = &visit
	return record
}
