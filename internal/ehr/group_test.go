package ehr_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func group(members ...string) http.HandlerFunc {
	return text(http.StatusOK, `{"resourceType":"Group","id":"g1","member":[`+strings.Join(members, ",")+`]}`)
}

func member(reference string) string { return fmt.Sprintf(`{"entity":{"reference":%q}}`, reference) }

func TestGroup(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	cases := map[string]struct {
		members func(h *hospital) []string
		want    []string
		lost    string // of the error, "" for none
	}{
		"relative":       {func(*hospital) []string { return []string{member("Patient/p1"), member("Patient/" + long)} }, []string{"p1", long}, ""},
		"absolute":       {func(h *hospital) []string { return []string{member(h.URL + "/fhir/Patient/p1")} }, []string{"p1"}, ""},
		"one version":    {func(*hospital) []string { return []string{member("Patient/p1/_history/3")} }, []string{"p1"}, ""},
		"twice":          {func(*hospital) []string { return []string{member("Patient/p1"), member("Patient/p1")} }, []string{"p1"}, ""},
		"nobody":         {func(*hospital) []string { return nil }, nil, ""},
		"inactive":       {func(*hospital) []string { return []string{`{"entity":{"reference":"Patient/p1"},"inactive":true}`} }, nil, ""},
		"another type":   {func(*hospital) []string { return []string{member("Practitioner/d1"), member("Patient/p1")} }, []string{"p1"}, ""},
		"another server": {func(*hospital) []string { return []string{member("https://elsewhere.example/fhir/Patient/p1")} }, nil, ""},
		"another base":   {func(h *hospital) []string { return []string{member(h.URL + "/other/Patient/p1")} }, nil, ""},
		"a device by identifier": {func(*hospital) []string {
			return []string{`{"entity":{"type":"Device","identifier":{"value":"1"}}}`}
		}, nil, ""},
		"by identifier alone": {func(*hospital) []string {
			return []string{`{"entity":{"identifier":{"value":"MRN-1"}}}`, member("Patient/p1")}
		}, []string{"p1"}, "1 of its members"},
		"ids that can't be": {func(*hospital) []string {
			return []string{member("Patient/a b"), member("Patient/.."), member("Patient"), member("Patient/p1")}
		}, []string{"p1"}, "3 of its members"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Group/g1", group(test.members(h)...))
			ids, err := h.client(t).Group(t.Context(), "g1")
			require.Equal(t, test.want, ids)
			if test.lost == "" {
				require.NoError(t, err)
				return
			}
			f := requireFault(t, err, fault.Data)
			require.Contains(t, f.Detail, test.lost)
			require.NotContains(t, err.Error(), "MRN-1")
		})
	}
}

func TestGroupOfAnEpicList(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Group/mylist|12", group(member("Patient/p1")))
	ids, err := h.client(t).Group(t.Context(), "mylist|12")
	require.NoError(t, err)
	require.Equal(t, []string{"p1"}, ids)
}

func TestGroupFails(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		id     string
		answer http.HandlerFunc
		kind   fault.Kind
	}{
		"no such Group":     {"g1", text(404, ""), fault.NotFound},
		"forbidden":         {"g1", text(403, ""), fault.Scope},
		"another resource":  {"g1", text(200, `{"resourceType":"Patient","id":"g1"}`), fault.Protocol},
		"members elsewhere": {"g1", text(200, `{"resourceType":"Group","member":{"entity":"Garcia"}}`), fault.Protocol},
		"too large":         {"g1", text(200, `{"resourceType":"Group","name":"`+strings.Repeat("x", 5000)+`"}`), fault.Data},
		"a path":            {"../Patient", nil, fault.Config},
		"nothing":           {"", nil, fault.Config},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			if test.answer != nil {
				h.on("/fhir/Group/"+test.id, test.answer)
			}
			_, err := h.client(t, func(cfg *ehr.Config) { cfg.MaxResource = 1000 }).Group(t.Context(), test.id)
			requireFault(t, err, test.kind)
			require.NotContains(t, err.Error(), "Garcia")
		})
	}
}
