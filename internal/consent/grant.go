package consent

import (
	"encoding/json"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// Terms are what a grant names.
type Terms struct {
	// From is inclusive, Until exclusive, both to the microsecond; zero: open. A grant that ends before it starts permits nothing.
	From, Until time.Time
	// Kinds are what may be disclosed; none: everything, and pulls too.
	Kinds []cura.ArtefactKind
	// Labels are the sensitivity labels that are permitted besides content that needs none; 42CFRPart2, SUD or ETH stands
	// for records under 42 CFR Part 2.
	Labels []string
	// Purposes are codes of v3-PurposeOfUse; none: TREAT.
	Purposes []string
}

// Grant is the consent that Cura writes for terms. Its root provision permits and is restricted to the terms, so that two
// grants add up; the labels are named by an exception, since content without any is permitted as well.
func Grant(g Terms) cura.ConsentEntry {
	root := rule{Type: "permit"}
	var when *cura.Period
	if !g.From.IsZero() || !g.Until.IsZero() {
		when, root.Period = &cura.Period{}, &bounds{}
		if !g.From.IsZero() {
			when.Start = exactly(g.From)
			root.Period.Start = when.Start.Text
		}
		if !g.Until.IsZero() {
			// The end of a Period is within it.
			when.End = exactly(g.Until.Add(-time.Microsecond))
			root.Period.End = when.End.Text
		}
	}
	for _, kind := range g.Kinds {
		typ, _ := resourceType(kind)
		root.Class = append(root.Class, code{systemResourceTypes, typ})
	}
	purposes := g.Purposes
	if len(purposes) == 0 {
		purposes = []string{"TREAT"}
	}
	for _, p := range purposes {
		root.Purpose = append(root.Purpose, code{systemPurpose, p})
	}
	if len(g.Labels) > 0 {
		named := rule{Type: "permit"}
		for _, label := range g.Labels {
			system := systemActCode
			if _, isLevel := confidentiality(label); isLevel {
				system = systemConfidentiality
			}
			named.SecurityLabel = append(named.SecurityLabel, code{system, label})
		}
		root.Provision = []rule{named}
	}
	entry := newEntry("OPTIN", root)
	entry.Period = when
	return entry
}

// Revocation is the consent that Cura writes when a patient revokes what Cura can't withdraw, such as a consent that the
// hospital holds: it denies everything, whatever else permits it. At is when the patient has said so; the denial itself has no
// period, so that no clock delays it. A consent of Cura's own is withdrawn by the same entry with the status inactive, this one too.
func Revocation(at time.Time) cura.ConsentEntry {
	entry := newEntry("OPTOUT", rule{Type: "deny"})
	if !at.IsZero() {
		entry.DateTime = exactly(at)
	}
	return entry
}

// newEntry is a consent as IHE Privacy Consent on FHIR has it, and with the policy rule that R4 asks for (ppc-1).
func newEntry(policy string, root rule) cura.ConsentEntry {
	raw, err := json.Marshal(root)
	if err != nil {
		panic(err) // it holds strings only
	}
	return cura.ConsentEntry{
		Status:     "active",
		Scope:      cura.Concept{Codings: []cura.Coding{{System: systemScope, Code: "patient-privacy"}}},
		Categories: []cura.Concept{{Codings: []cura.Coding{{System: systemLOINC, Code: "59284-0"}}}},
		PolicyRule: cura.Concept{Codings: []cura.Coding{{System: systemActCode, Code: policy}}},
		RootType:   root.Type,
		Provision:  raw,
	}
}

// rule is a Consent.provision in R4 JSON.
type rule struct {
	Type          string  `json:"type"`
	Period        *bounds `json:"period,omitempty"`
	SecurityLabel []code  `json:"securityLabel,omitempty"`
	Purpose       []code  `json:"purpose,omitempty"`
	Class         []code  `json:"class,omitempty"`
	Provision     []rule  `json:"provision,omitempty"`
}

type bounds struct {
	Start string `json:"start,omitempty"`
	End   string `json:"end,omitempty"`
}

type code struct {
	System string `json:"system"`
	Code   string `json:"code"`
}

// exactly is an instant as a dateTime to the microsecond.
func exactly(at time.Time) *cura.Moment {
	at = at.UTC().Truncate(time.Microsecond)
	utc := 0
	return &cura.Moment{
		Text: at.Format("2006-01-02T15:04:05.000000Z07:00"), Precision: cura.PrecisionSecond,
		Start: at, End: at.Add(time.Microsecond), OffsetMinutes: &utc,
	}
}
