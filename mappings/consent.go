package mappings

import (
	"encoding/json"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// consentResource is a Consent with the rules that it was made by, which may change the meaning of all of it as a modifier
// extension may (R4 §2.26.3.3).
type consentResource struct {
	r4.Consent
	Identifier           []r4.Identifier `json:"identifier"`
	ImplicitRules        json.RawMessage `json:"implicitRules"`
	ImplicitRulesElement json.RawMessage `json:"_implicitRules"`
}

// mapConsent maps a Consent to an entry of the consent log. The provision isn't interpreted: the decision rules read it whole.
func mapConsent(m *mapper, c *consentResource) cura.Record {
	status := m.status(c.Status, "draft", "proposed", "active", "rejected", "inactive")
	record := m.recordOf(&c.Resource, "patient", c.Patient)
	for _, id := range c.Identifier {
		if id.System == IdentifierSystem {
			record.WrittenAs = id.Value
		}
	}
	entry := cura.ConsentEntry{
		Status:     status,
		Scope:      concept(c.Scope),
		Categories: concepts(c.Category),
		DateTime:   m.moment("dateTime", c.DateTime),
		PolicyRule: concept(c.PolicyRule),
		Performers: m.labels(c.Performer),

		ModifierExtension: len(c.ModifierExtension)+len(c.ImplicitRules)+len(c.ImplicitRulesElement) > 0,
	}
	for _, p := range c.Policy {
		if p.URI != "" {
			entry.PolicyURIs = append(entry.PolicyURIs, p.URI)
		}
	}
	if len(c.Provision) > 0 && string(c.Provision) != "null" {
		var root r4.ConsentProvision
		if json.Unmarshal(c.Provision, &root) != nil {
			m.reject(m.path("provision"), "isn't of the JSON kind that belongs here")
		}
		if root.Type != "" {
			m.code("provision.type", root.Type, "permit", "deny")
		}
		entry.RootType = root.Type
		entry.Period = m.period("provision.period", root.Period)
		entry.Provision = json.RawMessage(compact(c.Provision))
	}
	record.Consent = &entry
	return record
}
