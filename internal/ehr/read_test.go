package ehr_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

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

func TestReadPage(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	const sent = `{"resourceType": "Patient", "id": "p1", "meta": {"versionId": "3", "lastUpdated": "2026-06-01T00:00:00Z"}}`
	h.on("/fhir/Patient/p1", text(http.StatusOK, " "+sent+"\n", "Date", "Mon, 23 Nov 2026 16:27:03 GMT"))
	h.on("/fhir/Patient", text(http.StatusOK, searchset(`{"resource":`+sent+`}`)))
	large := `{"resourceType":"Patient","id":"p2","text":{"div":"` + strings.Repeat("x", 2000) + `"}}`
	h.on("/fhir/Patient/p2", text(http.StatusOK, large))
	c := h.client(t, func(cfg *ehr.Config) { cfg.MaxResource = 1000 })

	page, err := c.ReadPage(t.Context(), cura.Patient, "p1")
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 11, 23, 16, 27, 3, 0, time.UTC), page.ServerTime)
	searched, err := c.Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	require.Equal(t, searched.Entries, page.Entries, "the same entry as a search gives, hash and all")
	require.JSONEq(t, sent, string(page.Entries[0].Resource))

	page, err = c.ReadPage(t.Context(), cura.Patient, "p2")
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
	require.True(t, page.Entries[0].Oversize)
	require.Equal(t, "p2", page.Entries[0].ID)
	require.EqualValues(t, len(large), page.Entries[0].Size)
}

// TestReadIsOneResource: an answer can't smuggle a second one in, and one that breaks off isn't taken as whole.
func TestReadIsOneResource(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		answer http.HandlerFunc
		kind   fault.Kind
	}{
		"two":        {text(200, `{"resourceType":"Patient","id":"p1"}},{"resource":{"resourceType":"Patient","id":"p2"}`), fault.Protocol},
		"an array":   {text(200, `[{"resourceType":"Patient"}]`), fault.Protocol},
		"an outcome": {text(200, outcome("error", "processing")), fault.Protocol},
		"a half":     {halfAnswer, fault.Transient},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient/p1", test.answer)
			page, err := h.client(t).ReadPage(t.Context(), cura.Patient, "p1")
			requireFault(t, err, test.kind)
			require.Empty(t, page.Entries)
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
