package mappings

import (
	"slices"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// mapPatient maps a Patient to a profile's demographics.
func mapPatient(m *mapper, p *r4.Patient) cura.Record {
	record := m.record(&p.Resource)
	record.PatientEHRID = record.EHRID
	if p.Gender != "" {
		m.code("gender", p.Gender, "male", "female", "other", "unknown")
	}
	profile := cura.Profile{
		Identifiers: m.identifiers(p.Identifier),
		BirthDate:   m.date("birthDate", p.BirthDate),
		Gender:      p.Gender,
		Telecom:     m.telecom(p.Telecom),
		Addresses:   m.addresses(p.Address),
		Deceased:    p.DeceasedBoolean,
		DeceasedAt:  m.moment("deceasedDateTime", p.DeceasedDateTime),
		Active:      p.Active,
		Links:       m.links(p.Link),
	}
	if profile.DeceasedAt != nil {
		yes := true
		profile.Deceased = &yes
	}
	profile.Name, profile.OtherNames = chooseName(m.names(p.Name), record.LastUpdated)
	record.Profile = &profile
	return record
}

// names maps the names that have any part.
func (m *mapper) names(from []r4.HumanName) []cura.Name {
	var out []cura.Name
	for i, n := range from {
		to := cura.Name{
			Use: n.Use, Family: strings.TrimSpace(n.Family),
			Given: present(n.Given), Prefix: present(n.Prefix), Suffix: present(n.Suffix),
			Period: m.period(at("name", i)+".period", n.Period),
		}
		if to.Display = strings.TrimSpace(n.Text); to.Display == "" {
			parts := append(append(slices.Clone(to.Prefix), to.Given...), present([]string{to.Family})...)
			to.Display = strings.Join(append(parts, to.Suffix...), " ")
		}
		if to.Display != "" {
			out = append(out, to)
		}
	}
	return out
}

// chooseName picks the name to show and gives the others in their order. A name that is in force goes before one that isn't;
// then use decides: official, usual, none, nickname, anonymous, temp, old, maiden; then the order in the resource.
func chooseName(names []cura.Name, updated time.Time) (*cura.Name, []cura.Name) {
	if len(names) == 0 {
		return nil, nil
	}
	best := 0
	for i := range names {
		if nameRank(names[i], updated) < nameRank(names[best], updated) {
			best = i
		}
	}
	chosen := names[best]
	return &chosen, slices.Delete(slices.Clone(names), best, best+1)
}

func nameRank(n cura.Name, updated time.Time) int {
	uses := []string{"official", "usual", "", "nickname", "anonymous", "temp", "old", "maiden"}
	rank := slices.Index(uses, n.Use)
	if rank < 0 {
		rank = len(uses)
	}
	if !inForce(n.Period, updated) {
		rank += len(uses) + 1
	}
	return rank
}

// inForce reports whether a period holds at the time the resource was last updated at its server. A mapping knows no "now", so
// that the same resource always maps the same way: without meta.lastUpdated an end, wherever it lies, ends the period.
func inForce(p *cura.Period, updated time.Time) bool {
	switch {
	case p == nil:
		return true
	case updated.IsZero():
		return p.End == nil
	case p.Start != nil && p.Start.Start.After(updated):
		return false
	}
	return p.End == nil || p.End.End.After(updated)
}

func (m *mapper) telecom(from []r4.ContactPoint) []cura.ContactPoint {
	var out []cura.ContactPoint
	for i, c := range from {
		value := strings.TrimSpace(c.Value)
		if value == "" {
			continue
		}
		out = append(out, cura.ContactPoint{
			System: c.System, Value: value, Use: c.Use, Rank: c.Rank, Period: m.period(at("telecom", i)+".period", c.Period),
		})
	}
	return out
}

func (m *mapper) addresses(from []r4.Address) []cura.Address {
	var out []cura.Address
	for i, a := range from {
		to := cura.Address{
			Use: a.Use, Type: a.Type, Text: strings.TrimSpace(a.Text), Lines: present(a.Line), City: a.City, District: a.District,
			State: a.State, PostalCode: a.PostalCode, Country: a.Country, Period: m.period(at("address", i)+".period", a.Period),
		}
		if to.Text+to.City+to.District+to.State+to.PostalCode+to.Country != "" || len(to.Lines) > 0 {
			out = append(out, to)
		}
	}
	return out
}

// links maps the links to other Patients. A replaced-by that leads nowhere rejects the patient: to take it would be to go on
// with a chart that the hospital has merged into another. Links to a RelatedPerson stay in the raw resource.
func (m *mapper) links(from []r4.PatientLink) []cura.ProfileLink {
	var out []cura.ProfileLink
	for i, l := range from {
		element := at("link", i)
		m.code(element+".type", l.Type, "replaced-by", "replaces", "refer", "seealso")
		to, ok := parseReference(l.Other.Reference)
		switch {
		case ok && to.typ == string(cura.Patient):
			out = append(out, cura.ProfileLink{Type: l.Type, PatientEHRID: to.id, PatientBase: to.base})
		case l.Type == "replaced-by":
			m.patient(element+".other", l.Other)
		}
	}
	return out
}
