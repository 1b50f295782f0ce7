package ehr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/profile"
)

// Person is what is known of a patient who is looked for. All of it is PHI.
type Person struct {
	// System and Value are an identifier, such as an MRN: both or neither.
	System, Value string
	// Family and Given are names; Given may hold several, separated by blanks.
	Family, Given string
	// BirthDate is YYYY-MM-DD; Gender is male, female, other or unknown.
	BirthDate, Gender string
}

const (
	opFind = "finding a patient"
	// maxFound is how many patients are asked for, and maxFindPages how many pages are followed: where more fit, nobody is
	// found for certain.
	maxFound     = 20
	maxFindPages = 5
)

// FindPatients looks for a person as the profile says: by identifier (by name, birth date and gender where there is none),
// or with Patient/$match, certain matches only. A POST that the server refuses is followed by a GET. It gives every Patient
// found, which need not be that person alone: servers answer with near matches too (DOMAIN §2), so compare the demographics.
// Errors are those of Search, and Data where there is too little to look for.
func (c *Client) FindPatients(ctx context.Context, who Person) ([]fhir.Entry, error) {
	if (who.System == "") != (who.Value == "") || (who.Value == "" && (who.Family == "" || who.BirthDate == "")) {
		return nil, fault.New(opFind, fault.Data, "there is no identifier to look for, nor a family name with a birth date").
			WithFix("Add the patient by the id that the EHR gives (starter roster), or complete the person's data in Cura")
	}
	r := request{errand: errandFind, op: opFind, typ: cura.Patient, accept: fhirJSON}
	if c.cfg.Profile.Find == profile.FindByMatch {
		body, err := json.Marshal(matchParameters(who))
		if err != nil {
			return nil, fault.Wrap(opFind, fault.Data, "the person's data can't be written as JSON", err).WithFix("Correct the person's data in Cura")
		}
		r.url, r.body, r.contentType = c.base.JoinPath("Patient", "$match"), body, fhirJSON
		return c.found(ctx, r, nil)
	}

	sent := who.params()
	sent.Set("_count", strconv.Itoa(c.cfg.Profile.PageSizeFor(cura.Patient, maxFound)))
	if c.cfg.Profile.FindByPost {
		r.url = c.base.JoinPath("Patient", "_search")
		r.body, r.contentType = []byte(sent.Encode()), "application/x-www-form-urlencoded"
		entries, err := c.found(ctx, r, sent)
		if !errors.Is(err, ErrRefused) {
			return entries, err
		}
		r.body = nil
	}
	r.url = c.base.JoinPath("Patient")
	r.url.RawQuery = sent.Encode()
	return c.found(ctx, r, sent)
}

// found gets the patients at r, over a few pages.
func (c *Client) found(ctx context.Context, r request, sent url.Values) ([]fhir.Entry, error) {
	var entries []fhir.Entry
	page, err := c.search(ctx, r, sent, cursor{})
	for pages := 1; ; pages++ {
		if err != nil {
			return nil, err
		}
		if len(page.Dropped) > 0 {
			// A server that passes over the body of a POST looks so as well, and is asked by GET.
			seen := fmt.Sprintf("the server has ignored %d of the search parameters, so anybody may be among the found", len(page.Dropped))
			return nil, fault.Wrap(r.op, fault.Unsupported, seen, ErrRefused).WithFix(unsupportedFix(r))
		}
		for _, e := range page.Entries {
			if e.Type == string(cura.Patient) {
				entries = append(entries, e)
			}
		}
		if page.Next == "" || pages == maxFindPages {
			return entries, nil
		}
		page, err = c.Search(ctx, Query{Type: cura.Patient, Next: page.Next})
	}
}

func (who Person) params() url.Values {
	params := url.Values{}
	if who.Value != "" {
		params.Set("identifier", escaped(who.System)+"|"+escaped(who.Value))
		return params
	}
	for name, value := range map[string]string{
		"family": escaped(who.Family), "given": escaped(who.Given), "birthdate": escaped(who.BirthDate), "gender": escaped(who.Gender),
	} {
		if value != "" {
			params.Set(name, value)
		}
	}
	return params
}

// escaped keeps the characters that separate values in a search (R4 §3.1.1.4.0.1) from doing so.
func escaped(value string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`, `|`, `\|`, `$`, `\$`).Replace(value)
}

// The Parameters that Patient/$match takes (R4 §8.1.14).
type (
	parameters struct {
		ResourceType string      `json:"resourceType"`
		Parameter    []parameter `json:"parameter"`
	}
	parameter struct {
		Name         string   `json:"name"`
		Resource     *patient `json:"resource,omitempty"`
		ValueBoolean *bool    `json:"valueBoolean,omitempty"`
		ValueInteger *int     `json:"valueInteger,omitempty"`
	}
	patient struct {
		ResourceType string       `json:"resourceType"`
		Identifier   []identifier `json:"identifier,omitempty"`
		Name         []humanName  `json:"name,omitempty"`
		Gender       string       `json:"gender,omitempty"`
		BirthDate    string       `json:"birthDate,omitempty"`
	}
	identifier struct {
		System string `json:"system"`
		Value  string `json:"value"`
	}
	humanName struct {
		Family string   `json:"family,omitempty"`
		Given  []string `json:"given,omitempty"`
	}
)

func matchParameters(who Person) parameters {
	p := patient{ResourceType: "Patient", Gender: who.Gender, BirthDate: who.BirthDate}
	if who.Value != "" {
		p.Identifier = []identifier{{System: who.System, Value: who.Value}}
	}
	if who.Family != "" || who.Given != "" {
		p.Name = []humanName{{Family: who.Family, Given: strings.Fields(who.Given)}}
	}
	return parameters{ResourceType: "Parameters", Parameter: []parameter{
		{Name: "resource", Resource: &p},
		{Name: "onlyCertainMatches", ValueBoolean: new(true)},
		{Name: "count", ValueInteger: new(maxFound)},
	}}
}
