package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
	"github.com/cura-health/ehr-sync/mappings"
)

// landed is an item as the EHR served it, mapped.
func landed(t *testing.T, raw string, profile cura.ProfileID) store.Item {
	t.Helper()
	record, err := mappings.Map([]byte(raw))
	require.NoError(t, err)
	return store.Item{
		EHRID: record.EHRID, Hash: sha256.Sum256([]byte(raw)), Raw: []byte(raw), RawBytes: int64(len(raw)), Outcome: store.Stored,
		Profile: profile, Record: record,
	}
}

// labWard is a desk whose connection has read the patient phi-p1: two measurements of glucose, and one in words.
func labWard(t *testing.T) (w ward, profile cura.ProfileID) {
	t.Helper()
	w = ward{desk: newDesk(t)}
	w.addMain(t)
	var err error
	w.l, err = w.db.FindConnection(t.Context(), "st-mary/main")
	require.NoError(t, err)
	profile = cura.ProfileID(uuid.NewString())
	patient := landed(t, `{"resourceType":"Patient","id":"phi-p1","name":[{"family":"Quillfeather"}]}`, profile)
	patient.MatchedBy = "new"
	w.pull(t, cura.Patient, patient)
	observation := func(id, value string) store.Item {
		return landed(t, fmt.Sprintf(`{"resourceType":"Observation","id":%q,"status":"final","subject":{"reference":"Patient/phi-p1"},"code":{"text":"glucose"},%s}`, id, value), profile)
	}
	w.pull(t, cura.Observation, observation("phi-o1", `"valueQuantity":{"value":99.0,"unit":"mg%"}`),
		observation("phi-o2", `"valueString":"high"`), observation("phi-o3", `"valueQuantity":{"value":1e45,"unit":"mg%"}`))
	return w, profile
}

func TestMappingPreviewOfAPatient(t *testing.T) {
	t.Parallel()
	w, profile := labWard(t)
	_, err := w.mapping(t, "version: 1\nunits: [{resource: Observation, code: any, from: mg%, to: mg/L, same: true}]", "set", "main", "-")
	require.NoError(t, err)
	link := storetest.Query[string](t, w.db, "SELECT link_id::text FROM sync.patient_links")[0]
	site := mappingFile(t, "site.yaml", "version: 2\nunits: [{resource: Observation, code: any, from: mg%, to: g/L, factor: 0.01}]")
	for _, id := range []string{string(profile), link, "phi-p1"} {
		out, err := w.mapping(t, "", "preview", "main", "--patient", id, "--overrides", site)
		require.NoError(t, err)
		for _, part := range []string{
			"BEFORE", "AFTER", "99.0 mg%", "99.0 mg/L", "0.990 g/L",
			"with the file: Observation can't be mapped: Observation.valueQuantity: has more digits than can be converted",
			"1 of 4 resources change. Rows would say 1+site.2.", " instead of 1+site.1.", "Nothing changes in: Patient 1, Observation 1.",
		} {
			require.Contains(t, out, part)
		}
		require.NotContains(t, out, "Quillfeather", "what doesn't change is only counted")
	}
	out, err := w.mapping(t, "", "preview", "main", "--patient", "phi-p1")
	require.NoError(t, err)
	for _, part := range []string{"Patient 1 of 1", "Quillfeather", "Observation 3 of 3", "VALUE IN CURA", "99.0 mg/L", "Rows that are mapped so say 1+site.1."} {
		require.Contains(t, out, part)
	}
	require.NotContains(t, out, "AFTER")

	out, err = w.mapping(t, "version: 2\ntypes: {exclude: [Observation]}", "preview", "main", "--patient", "phi-p1", "--overrides", "-")
	require.NoError(t, err)
	require.Contains(t, out, "The file leaves out: Observation 3.")

	out, err = w.mapping(t, "", "preview", "main", "--patient", "phi-p1", "--overrides", site, "-o", "json")
	require.NoError(t, err)
	var v patientPreview
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	require.Equal(t, profile, v.Profile)
	require.Len(t, v.Resources, 4)
	require.Equal(t, cura.Patient, v.Resources[0].Type)
	require.False(t, v.More)

	details := storetest.Query[string](t, w.db, "SELECT actor || ' ' || details::text FROM audit.records WHERE kind = $1", audit.OperatorCommand)
	require.Len(t, details, 6, "each look is recorded")
	for _, d := range details {
		require.Contains(t, d, "asserted:pat ")
		require.Contains(t, d, `"profile":"`+string(profile)+`"`)
		require.NotContains(t, d, "phi-", "the EHR's id isn't")
	}
}

// What the patient's consents keep from the connection isn't shown, though it has landed before.
func TestMappingPreviewHeedsConsent(t *testing.T) {
	t.Parallel()
	w, _ := labWard(t)
	w.does(t, "connection", "edit", "main", "--pull-consent", "opt-in")
	out, err := w.mapping(t, "", "preview", "main", "--patient", "phi-p1")
	require.NoError(t, err)
	require.Contains(t, out, "Patient 1 of 1")
	require.NotContains(t, out, "Observation")
}

func TestMappingPreviewOfAPatientRefuses(t *testing.T) {
	t.Parallel()
	w, _ := labWard(t)
	var usage *usageError
	for name, args := range map[string][]string{
		"no connection": {"preview", "--patient", "phi-p1"},
		"both":          {"preview", "main", "--patient", "phi-p1", "--resource", "-"},
		"neither":       {"preview", "main"},
	} {
		_, err := w.mapping(t, "", args...)
		require.ErrorAs(t, err, &usage, name)
	}
	_, err := w.mapping(t, "", "preview", "main", "--patient", "phi-nobody")
	require.True(t, fault.Is(err, fault.NotFound), "%v", err)
	require.NotContains(t, err.Error(), "phi-nobody")
	_, err = w.mapping(t, "version: x", "preview", "main", "--patient", "phi-p1", "--overrides", "-")
	require.ErrorContains(t, err, "-:1: version")
	w.does(t, "org", "operators", "add", "st-mary", "kim", "--role", "admin")
	_, err = w.mapping(t, "", "preview", "main", "--patient", "phi-p1")
	require.Error(t, err, "the org has operators, and pat isn't one")
	require.Equal(t, []string{string(audit.Denied)}, storetest.Query[string](t, w.db, "SELECT outcome FROM audit.records WHERE kind = $1", audit.OperatorCommand),
		"nothing was shown, and who tried is recorded")
}
