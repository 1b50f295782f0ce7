package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// mapping runs a command line of starter mapping on the desk's database.
func (d desk) mapping(t *testing.T, stdin string, args ...string) (out string, err error) {
	t.Helper()
	return mapping(t, stdin, append(args, "--database-url", d.db.URL, "--as", "pat")...)
}

const siteRules = `# St Mary's
version: 3
units:
  - {resource: Observation, code: any, from: mg%, to: mg/dL, factor: 1}
types:
  exclude: [Encounter]
`

func TestMappingSetShowClear(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	_, err := d.mapping(t, "", "show", "st-mary/main")
	require.True(t, fault.Is(err, fault.NotFound))
	require.ErrorContains(t, err, "st-mary/main has none")
	require.Contains(t, d.does(t, "connection", "show", "main"), "Mapping     Cura's own\n")
	out, err := d.mapping(t, "", "clear", "main")
	require.NoError(t, err)
	require.Contains(t, out, "Unchanged: st-mary/main has no mapping overrides.")

	site := mappingFile(t, "site.yaml", siteRules)
	out, err = d.mapping(t, "", "set", "main", site)
	require.NoError(t, err)
	for _, part := range []string{
		"What is read of st-mary/main is mapped with overrides 3 from now on; rows say 1+site.3.", "It leaves out Encounter",
		"starter remap st-mary/main --dry-run", "starter remap st-mary/main  ",
	} {
		require.Contains(t, out, part)
	}
	out, err = d.mapping(t, "", "show", "st-mary/main")
	require.NoError(t, err)
	require.Equal(t, siteRules, out, "as it was set, comments and all")
	shown := d.does(t, "connection", "show", "main")
	require.Contains(t, shown, "with overrides 3, which asserted:pat has set at ")
	require.Contains(t, shown, "off since ")
	require.Contains(t, shown, "excluded by the mapping")

	out, err = d.mapping(t, siteRules, "set", "main", "-", "-o", "json")
	require.NoError(t, err)
	var v mappingChange
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	require.Equal(t, mappingChange{
		Connection: "st-mary/main", Overrides: 3, MappingVersion: v.MappingVersion, Excluded: []cura.ResourceType{cura.Encounter},
		Commands: []string{"starter remap st-mary/main --dry-run", "starter remap st-mary/main"},
	}, v, "unchanged")
	out, err = d.mapping(t, "", "set", "main", site)
	require.NoError(t, err)
	require.Contains(t, out, "Unchanged: st-mary/main is mapped with that very file already")

	var file store.MappingOverrides
	out, err = d.mapping(t, "", "show", "main", "-o", "json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(out), &file))
	require.Equal(t, siteRules, file.Text)
	require.Equal(t, v.MappingVersion, "1+site.3."+file.SHA256[:8])
	out = d.does(t, "connection", "show", "main", "-o", "json")
	var view struct {
		Overrides   int                    `json:"overrides_version"`
		MappingFile store.MappingOverrides `json:"mapping_overrides"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &view))
	require.Equal(t, 3, view.Overrides)
	file.Text = ""
	require.Equal(t, file, view.MappingFile)

	out, err = d.mapping(t, "", "clear", "main")
	require.NoError(t, err)
	require.Contains(t, out, "What is read of st-mary/main is mapped without overrides from now on (they were version 3); rows say 1.")
	require.NotContains(t, d.does(t, "connection", "show", "main"), "excluded by the mapping")
	require.Equal(t, []string{"asserted:pat", "asserted:pat"}, storetest.Query[string](t, d.db,
		"SELECT actor FROM audit.records WHERE kind = $1 AND details::jsonb ? 'mapping_overrides'", audit.ConnectionEdited))
}

func TestMappingSetRefusesAndChangesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--pull-consent", "opt-out")
	_, err := d.mapping(t, siteRules, "set", "main", "-")
	require.NoError(t, err)
	before := d.does(t, "connection", "show", "main", "-o", "json")
	for name, tt := range map[string]struct{ text, says string }{
		"broken YAML":                 {"version: 4\ncodes: [", "-:2: the YAML can't be read from here on"},
		"an unknown target field":     {"version: 4\ncodes:\n  - {resource: Observation, field: colour, from: {code: a}, to: {system: \"urn:s\", code: b}}", `-:3: codes[0].field: "colour" isn't one of`},
		"a cycle":                     {"version: 4\nidentifiers:\n  rename:\n    \"urn:a\": \"urn:b\"\n    \"urn:b\": \"urn:a\"", "-:4: identifiers.rename: the chain of lines 4, 5 leads back to itself"},
		"a unit without a conversion": {"version: 4\nunits:\n  - {resource: Observation, code: any, from: mg%, to: mg/dL}", "-:3: units[0].factor: missing"},
		"the same version":            {siteRules + "# changed\n", "version 3 isn't higher than 3"},
		"an older version":            {"version: 2", "version 2 isn't higher than 3"},
		"Consent, which decides":      {"version: 4\ntypes: {exclude: [Consent]}", "by st-mary/main's policy opt-out consents decide"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := d.mapping(t, tt.text, "set", "main", "-")
			require.ErrorContains(t, err, tt.says)
			require.NotEmpty(t, strings.TrimSpace(explain(err)))
			require.JSONEq(t, before, d.does(t, "connection", "show", "main", "-o", "json"))
			require.Equal(t, []int{3}, storetest.Query[int](t, d.db, "SELECT version FROM sync.mapping_overrides"))
		})
	}
	for name, args := range map[string][]string{"no file": {"set", "main"}, "no connection": {"set"}, "too much": {"set", "main", "a", "b"}, "clear nothing": {"clear"}, "show nothing": {"show"}} {
		var usage *usageError
		_, err := d.mapping(t, "", args...)
		require.ErrorAs(t, err, &usage, name)
	}
	_, err = d.mapping(t, "version: 1", "set", "elsewhere", "-")
	require.True(t, fault.Is(err, fault.NotFound), "%v", err)
}

func TestMappingSetMayLeaveOutConsentsThatDecideNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	out, err := d.mapping(t, "version: 1\ntypes: {exclude: [Consent]}", "set", "main", "-")
	require.NoError(t, err)
	require.Contains(t, out, "It leaves out Consent")
}
