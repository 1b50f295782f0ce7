// Package gate decides whether an artefact may leave for an EHR: by its author's role, the org's policy and the patient's
// consents. It is pure.
package gate

import (
	"time"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/mappings"
)

// RoleNotAllowed is the code of a decision against an author's role; the other codes are those of package consent.
const RoleNotAllowed consent.Code = "role-not-allowed"

// Exempt is the code of a decision about what may go without a permit: the event that tells of a change of consent, and the
// retraction of what went before.
const Exempt consent.Code = "exempt"

// Decide decides about one artefact by the consents that stand at an instant. What is exempt needs no permit, but a role.
func Decide(a cura.Artefact, exempt bool, policy cura.OrgPolicy, standing []consent.Consent, at time.Time) consent.Decision {
	if !policy.MayAuthor(a.Author.Role, a.Kind) {
		return consent.Decision{
			Code: RoleNotAllowed, Reason: "the author's role, " + string(a.Author.Role) + ", may not author a " + string(a.Kind) + " in this org",
		}
	}
	if exempt {
		return consent.Decision{Allow: true, Code: Exempt, Reason: "it carries no clinical content, and may go without a permit"}
	}
	return Permits(a, policy, standing, at)
}

// Permits decides by consent alone.
func Permits(a cura.Artefact, policy cura.OrgPolicy, standing []consent.Consent, at time.Time) consent.Decision {
	return consent.Decide(consent.Request{
		Action: consent.Disclose, Kind: a.Kind, Codes: mappings.CodesOf(a), Labels: a.Labels, Part2: policy.Part2, DataFrom: a.AuthoredAt,
	}, standing, at)
}
