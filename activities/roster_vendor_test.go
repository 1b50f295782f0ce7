package activities_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// people are the sandbox's patients as a hospital would list them for Cura, by EHR id.
func (h *hospital) people(t *testing.T) map[string]store.Enrolment {
	t.Helper()
	all := map[string]store.Enrolment{}
	for id, raw := range h.source(t)["Patient"] {
		var p struct {
			Identifier []struct {
				System string `json:"system"`
				Value  string `json:"value"`
			} `json:"identifier"`
			Name []struct {
				Family string `json:"family"`
			} `json:"name"`
			BirthDate string `json:"birthDate"`
		}
		require.NoError(t, json.Unmarshal(raw, &p))
		for _, i := range p.Identifier {
			if i.System == h.ehr.MRNSystem() && len(p.Name) > 0 && p.Name[0].Family != "" && p.BirthDate != "" {
				all[id] = store.Enrolment{Value: i.Value, Family: p.Name[0].Family, BirthDate: p.BirthDate}
			}
		}
	}
	require.NotEmpty(t, all)
	return all
}

// TestEachVendorsPatientsAreFound: by search or $match, near matches among the answers, nobody is missed or mixed up.
func TestEachVendorsPatientsAreFound(t *testing.T) {
	t.Parallel()
	for vendor, params := range vendors() {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{profile: vendor, params: params, sandbox: sandbox.Config{Vendor: vendor}})
			people := h.people(t)
			wrong := store.Enrolment{Value: "nobody-has-this", Family: "Nobody", BirthDate: "1901-01-01"}
			h.enrol(t, h.target, wrong)
			for _, p := range people {
				h.enrol(t, h.target, p)
			}
			result, err := h.refresh(t, h.target)
			require.NoError(t, err)
			require.Equal(t, activities.RosterResult{Members: len(people), Added: len(people), NotFound: 1}, result)
			for id, p := range people {
				require.Equal(t, []string{id}, storetest.Query[string](t, h.db, `
					SELECT r.ehr_id FROM sync.enrolments e JOIN sync.roster r USING (member_id) WHERE e.value = $1`, p.Value))
			}
		})
	}
}

// TestEachVendorsGroupIsFollowed: the sandbox's Group has all patients but every tenth.
func TestEachVendorsGroupIsFollowed(t *testing.T) {
	t.Parallel()
	for vendor, params := range vendors() {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, options{profile: vendor, params: params, sandbox: sandbox.Config{Vendor: vendor, Patients: 20}})
			h.change(t, h.target, func(c *cura.Connection) {
				p, err := profile.Builtin(vendor)
				require.NoError(t, err)
				c.RosterSource, c.GroupID = cura.RosterGroup, sandbox.RosterGroup
				c.Scopes = p.ScopesFor(append(cura.ResourceTypes(), "Group"))
			})
			result, err := h.refresh(t, h.target)
			require.NoError(t, err)
			require.Equal(t, activities.RosterResult{Members: 18, Added: 18}, result)
			listed := h.patients(t)
			for _, id := range storetest.Query[string](t, h.db, "SELECT ehr_id FROM sync.roster") {
				require.Contains(t, listed, id)
			}
		})
	}
}

// vendors are the built-in profiles with what they need to know.
func vendors() map[string]map[string]string {
	return map[string]map[string]string{
		"epic": nil, "oracle": nil, "athena": {"practice": "Organization/a-1.Practice-1"}, "medplum": nil, "hapi": nil,
	}
}
