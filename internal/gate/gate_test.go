package gate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/gate"
)

func TestTheGate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	granted := []consent.Consent{{ID: "7", Source: "cura", Entry: consent.Grant(consent.Terms{})}}
	revoked := []consent.Consent{granted[0], {ID: "8", Source: "cura", Entry: consent.Revocation(now)}}
	by := func(role cura.Role, kind cura.ArtefactKind, labels ...string) cura.Artefact {
		return cura.Artefact{Kind: kind, ID: "a", Version: 1, Author: cura.Author{Name: "Ada", Role: role}, Labels: labels, AuthoredAt: now.Add(-time.Hour)}
	}
	part2 := cura.DefaultOrgPolicy()
	part2.Part2 = true
	tests := map[string]struct {
		artefact cura.Artefact
		exempt   bool
		policy   cura.OrgPolicy
		consents []consent.Consent
		code     consent.Code
	}{
		"a clinician's note, permitted":          {by(cura.RoleClinician, cura.Note), false, cura.DefaultOrgPolicy(), granted, consent.Permitted},
		"a coder writes codes":                   {by(cura.RoleCoder, cura.Procedure), false, cura.DefaultOrgPolicy(), granted, consent.Permitted},
		"a coder writes no note":                 {by(cura.RoleCoder, cura.Note), false, cura.DefaultOrgPolicy(), granted, gate.RoleNotAllowed},
		"an operator authors nothing":            {by(cura.RoleAdmin, cura.Diagnosis), false, cura.DefaultOrgPolicy(), granted, gate.RoleNotAllowed},
		"no consent at all":                      {by(cura.RoleClinician, cura.Note), false, cura.DefaultOrgPolicy(), nil, consent.NoConsent},
		"a denial beats a permit":                {by(cura.RoleClinician, cura.Note), false, cura.DefaultOrgPolicy(), revoked, consent.Denied},
		"a label needs a permit of its own":      {by(cura.RoleClinician, cura.Note, "PSY"), false, cura.DefaultOrgPolicy(), granted, consent.Sensitive},
		"a Part 2 programme's note":              {by(cura.RoleClinician, cura.Note), false, part2, granted, consent.Part2},
		"what is exempt goes after a revocation": {by(cura.RoleConsentOfficer, cura.ConsentEvent), true, cura.DefaultOrgPolicy(), revoked, gate.Exempt},
		"what is exempt needs a role all the same": {
			by(cura.RoleCoder, cura.ConsentEvent), true, cura.DefaultOrgPolicy(), revoked, gate.RoleNotAllowed,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := gate.Decide(tc.artefact, tc.exempt, tc.policy, tc.consents, now)
			require.Equal(t, tc.code, d.Code, d.Reason)
			require.Equal(t, tc.code == consent.Permitted || tc.code == gate.Exempt, d.Allow)
			require.NotEmpty(t, d.Reason)
		})
	}
}
