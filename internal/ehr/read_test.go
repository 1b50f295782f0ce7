package ehr_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func TestRead(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	sent := []byte(`{"resourceType": "Patient", "id": "p1", "multipleBirthInteger": 1.0}`)
	h.on("/fhir/Patient/p1", text(http.StatusOK, string(sent)))
	raw, err := h.client(t).Read(t.Context(), cura.Patient, "p1")
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, raw), "the bytes as they came")
	require.Equal(t, "Bearer token-1", h.asked("/fhir/Patient/p1")[0].Header.Get("Authorization"))
}

func TestReadAnswers(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		body string
		kind fault.Kind
	}{
		"another type": {`{"resourceType":"Bundle"}`, fault.Protocol},
		"no type":      {`{}`, fault.Protocol},
		"broken":       {`{"resourceType":"Patient"`, fault.Protocol},
		"HTML":         {`<html></html>`, fault.Protocol},
		"too large":    {`{"resourceType":"Patient","id":"` + strings.Repeat("x", 2000) + `"}`, fault.Data},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient/p1", text(http.StatusOK, test.body))
			_, err := h.client(t, func(cfg *ehr.Config) { cfg.MaxResource = 1000 }).Read(t.Context(), cura.Patient, "p1")
			require.NotEmpty(t, requireFault(t, err, test.kind).Fix)
		})
	}
}

func TestReadRefusesIDs(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	c := h.client(t)
	for _, id := range []string{"", ".", "..", "p1/../p2", "p1?x=1", "p1#x", "a b", "p%31", "ü", strings.Repeat("x", 256)} {
		_, err := c.Read(t.Context(), cura.Patient, id)
		requireFault(t, err, fault.Data)
	}
	require.Empty(t, h.asked(""))
	for _, id := range []string{"p1", "A-1.b_2", strings.Repeat("x", 100)} {
		h.on("/fhir/Patient/"+id, text(http.StatusOK, `{"resourceType":"Patient"}`))
		_, err := c.Read(t.Context(), cura.Patient, id)
		require.NoError(t, err)
	}
}
