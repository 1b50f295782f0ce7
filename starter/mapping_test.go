package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/mappings"
)

// mapping runs a command line of starter mapping.
func mapping(t *testing.T, stdin string, args ...string) (out string, err error) {
	t.Helper()
	oneAtATime.Lock()
	defer oneAtATime.Unlock()
	var b bytes.Buffer
	app := newApp(strings.NewReader(stdin), &b, &bytes.Buffer{})
	app.Commands = prepare([]*cli.Command{mappingCommand()})
	line, err := reorder(app, append([]string{"starter", "mapping"}, args...))
	if err == nil {
		err = app.RunContext(t.Context(), line)
	}
	return b.String(), err
}

func mappingFile(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

const glucose = `{"resourceType":"Observation","id":"o1","status":"final","subject":{"reference":"Patient/p1"},
	"code":{"coding":[{"system":"http://st-mary.example/labs","code":"GLU"}]},"valueQuantity":{"value":99.0,"unit":"mg%"}}`

func TestMappingInitPrintsWhatCheckTakes(t *testing.T) {
	t.Parallel()
	text, err := mapping(t, "", "init")
	require.NoError(t, err)
	out, err := mapping(t, text, "check", "-")
	require.NoError(t, err)
	require.Contains(t, out, "- has no faults. Rows that it maps say 1+site.1.")
	require.Contains(t, out, "identifier systems 2, uses of names 2, codes 3, units 3, categories 1, types left out 1.")

	out, err = mapping(t, "", "check", mappingFile(t, "site.yaml", text), "-o", "json")
	require.NoError(t, err)
	var view mappingView
	require.NoError(t, json.Unmarshal([]byte(out), &view))
	require.Equal(t, mappings.OverrideCounts{Identifiers: 2, NameUses: 2, Codes: 3, Units: 3, Categories: 1, Excluded: 1}, view.Rules)
}

func TestMappingCheckNamesEveryFault(t *testing.T) {
	t.Parallel()
	_, err := mapping(t, "", "check", mappingFile(t, "site.yaml", "version: one\ntypes: {exclude: [Patient]}\n"))
	require.True(t, fault.Is(err, fault.Config))
	require.ErrorContains(t, err, "site.yaml:1: version")
	require.ErrorContains(t, err, "site.yaml:2: types.exclude[0]")
	_, err = mapping(t, strings.Repeat("#", mappings.MaxOverrides+1), "check", "-")
	require.ErrorContains(t, err, "-:1: the file has more than 1048576 bytes")
}

func TestMappingPreviewShowsBeforeAndAfter(t *testing.T) {
	t.Parallel()
	resource, site := mappingFile(t, "glucose.json", glucose), mappingFile(t, "site.yaml", mappings.OverridesExample())
	out, err := mapping(t, "", "preview", "--resource", resource, "--overrides", site)
	require.NoError(t, err)
	for _, part := range []string{"BEFORE", "AFTER", "Glucose [Mass/volume] in Serum or Plasma (2345-7,", "99.0 mg%", "99.0 mg/dL", "2 of 5 lines change. The row would say 1+site.1."} {
		require.Contains(t, out, part)
	}

	out, err = mapping(t, glucose, "preview", "--resource", "-", "--overrides", site, "-o", "json")
	require.NoError(t, err)
	var p mappings.OverridePreview
	require.NoError(t, json.Unmarshal([]byte(out), &p))
	require.Contains(t, p.Lines, mappings.OverrideLine{
		Element: "Observation.valueQuantity", Source: "99.0 mg%", Field: "labs.observations.value",
		Before: "kind=quantity quantity=(99.0 mg%)", After: "kind=quantity quantity=(99.0 mg/dL)",
	})

	out, err = mapping(t, "", "preview", "--resource", resource)
	require.NoError(t, err)
	require.Contains(t, out, "VALUE IN CURA")
	require.NotContains(t, out, "AFTER")

	out, err = mapping(t, "", "preview", "--resource", resource, "--overrides", mappingFile(t, "none.yaml", "version: 1\ntypes: {exclude: [Observation]}"))
	require.NoError(t, err)
	require.Contains(t, out, "The overrides leave out Observation: this resource wouldn't be stored.")
}

func TestMappingRefuses(t *testing.T) {
	t.Parallel()
	var usage *usageError
	var rejected *mappings.RejectedError
	for name, tt := range map[string]struct {
		args []string
		as   any
		says string
	}{
		"no file":              {[]string{"check"}, &usage, "takes one argument, the file of overrides"},
		"a file that isn't":    {[]string{"check", filepath.Join(t.TempDir(), "none")}, &usage, "the file of overrides: "},
		"no resource":          {[]string{"preview"}, &usage, "needs --resource"},
		"a resource too many":  {[]string{"preview", "a", "--resource", "b"}, &usage, "takes no arguments"},
		"resource isn't there": {[]string{"preview", "--resource", filepath.Join(t.TempDir(), "none")}, &usage, "the resource: "},
		"both from stdin":      {[]string{"preview", "--resource", "-", "--overrides", "-"}, &usage, "can't both read standard input"},
		"init of what":         {[]string{"init", "a"}, &usage, "takes no arguments"},
		"no FHIR":              {[]string{"preview", "--resource", "-"}, &rejected, "the JSON isn't well formed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := mapping(t, "{", tt.args...)
			require.ErrorAs(t, err, tt.as)
			require.ErrorContains(t, err, tt.says)
		})
	}
}
