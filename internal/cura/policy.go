package cura

import "slices"

// OrgPolicy is what an org has decided about what is pushed.
type OrgPolicy struct {
	// Part2: the org is a programme under 42 CFR Part 2: a permit must name that, whatever else an artefact is labelled.
	Part2 bool `json:"part2"`
	// AnnounceConsent: the hospital is told of a change of consent.
	AnnounceConsent bool `json:"announce_consent"`
	// Authors are the roles that may author each kind.
	Authors map[ArtefactKind][]Role `json:"authors"`
}

// DefaultOrgPolicy is the policy of an org that has decided nothing.
func DefaultOrgPolicy() OrgPolicy {
	return OrgPolicy{
		AnnounceConsent: true,
		Authors: map[ArtefactKind][]Role{
			Note: {RoleClinician}, Diagnosis: {RoleClinician, RoleCoder}, Procedure: {RoleClinician, RoleCoder}, ConsentEvent: {RoleConsentOfficer},
		},
	}
}

// MayAuthor reports whether a role may author artefacts of a kind.
func (p OrgPolicy) MayAuthor(role Role, kind ArtefactKind) bool {
	return slices.Contains(p.Authors[kind], role)
}
