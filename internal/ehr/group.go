package ehr

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// Group reads the members of a Group by its id (PHI, like the ids given): its active members that are Patients of this
// FHIR base, each once, in the Group's order. Members of other types or of other servers are left out. Where a member
// names a patient in a way that can't be followed, the error is a fault.Data that counts them, and the other ids are
// given all the same; otherwise errors are those of ReadPage.
func (c *Client) Group(ctx context.Context, id string) (ids []string, err error) {
	const op = "reading a Group"
	if !groupID(id) {
		return nil, fault.New(op, fault.Config, "the Group's id isn't spelled as FHIR allows").WithFix("Give the id as the hospital's EHR analyst wrote it")
	}
	page, err := c.readPage(ctx, "Group", c.base.JoinPath("Group", url.PathEscape(id)))
	if err != nil {
		return nil, err
	}
	if page.Entries[0].Oversize {
		return nil, c.oversize(op)
	}
	var group struct {
		Member []struct {
			Entity struct {
				Reference string `json:"reference"`
				Type      string `json:"type"`
			} `json:"entity"`
			Inactive bool `json:"inactive"`
		} `json:"member"`
	}
	if err := json.Unmarshal(page.Entries[0].Resource, &group); err != nil {
		return nil, fault.Wrap(op, fault.Protocol, "the Group's members can't be read", err).WithFix("Ask the hospital about its FHIR server")
	}

	seen, unreadable := map[string]bool{}, 0
	for _, m := range group.Member {
		if m.Inactive {
			continue
		}
		switch patient, what := c.patientOf(m.Entity.Reference); {
		case what == notPatient && m.Entity.Reference == "" && (m.Entity.Type == "" || m.Entity.Type == "Patient"):
			unreadable++ // named by an identifier alone
		case what == unreadablePatient:
			unreadable++
		case what == aPatient && !seen[patient]:
			seen[patient] = true
			ids = append(ids, patient)
		}
	}
	if unreadable > 0 {
		return ids, fault.Newf(op, fault.Data, "%d of its members aren't named by a reference to a Patient that can be followed", unreadable).
			WithFix("Ask the hospital to have the Group name its patients by reference, or add those patients with starter roster")
	}
	return ids, nil
}

type reference int

const (
	notPatient reference = iota
	unreadablePatient
	aPatient
)

// patientOf reads a reference, relative or under the FHIR base, perhaps to one version. One that leads to another server
// is no patient of ours: it is never followed.
func (c *Client) patientOf(text string) (string, reference) {
	rest := text
	if u, err := url.Parse(text); err == nil && u.IsAbs() {
		if !below(c.base, u) {
			return "", notPatient
		}
		rest = strings.TrimPrefix(strings.TrimPrefix(u.Path, c.base.Path), "/")
	}
	parts := strings.Split(rest, "/")
	switch {
	case parts[0] != "Patient":
		return "", notPatient
	case (len(parts) == 2 || (len(parts) == 4 && parts[2] == "_history")) && fhir.IsID(parts[1]):
		return parts[1], aPatient
	default:
		return "", unreadablePatient
	}
}

// groupID takes what a resource's id may be, and the bars in the ids of Epic's lists (DOMAIN §2, Rosters).
func groupID(id string) bool { return fhir.IsID(strings.ReplaceAll(id, "|", "-")) }
