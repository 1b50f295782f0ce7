package activities

import (
	"fmt"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// describe adds what became of a part to the report: of the Patient, how it was matched. It was mapped with the overrides.
func (p part) describe(report *cura.PilotPatient, overrides *mappings.Overrides) {
	if p.pass.Type == cura.Patient {
		p.describePatient(report)
	}
	previewed := false
	for _, it := range p.items {
		for _, r := range it.Reasons {
			report.Rejected = append(report.Rejected, fmt.Sprintf("%s %s", r.Path, r.Text))
		}
		if previewed || it.Raw == nil || (it.Outcome != store.Stored && it.Outcome != store.InReview) {
			continue
		}
		previewed = true
		preview, err := mappings.PreviewWith(it.Raw, overrides, overrides)
		if err != nil {
			report.Notes = append(report.Notes, string(p.pass.Type)+": there is no preview of the first one")
			continue
		}
		for _, l := range preview.Lines[:min(len(preview.Lines), previewLines)] {
			report.Preview = append(report.Preview, cura.PreviewLine{Element: l.Element, Source: l.Source, Field: l.Field, Value: l.After})
		}
	}
}

// describePatient adds how the Patient was matched, and which required fields are missing.
func (p part) describePatient(report *cura.PilotPatient) {
	for _, it := range p.items {
		if it.Outcome == store.Quarantined {
			report.Match, report.MatchReason = rejected, "the Patient resource was rejected"
		} else if d, ok := p.decisions[it.EHRID]; ok {
			report.Match, report.MatchReason = string(d.Outcome), d.Reason
		}
		profile := it.Record.Profile
		if profile == nil {
			continue
		}
		if profile.Name == nil {
			report.Missing = append(report.Missing, "profiles.name")
		}
		if profile.BirthDate == nil {
			report.Missing = append(report.Missing, "profiles.birth_date")
		}
		if profile.Gender == "" {
			report.Missing = append(report.Missing, "profiles.gender")
		}
	}
}
