package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// TestWhatCantBeReadAgain: nothing is started, and what was named is told by its place, since an id is PHI.
func TestWhatCantBeReadAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--types", "Patient,Observation")
	require.Len(t, storetest.Query[string](t, d.db, "UPDATE sync.connections SET phase = 'live' WHERE shadow_of IS NULL RETURNING name"), 1)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	var many strings.Builder
	for i := range maxPatients + 1 {
		fmt.Fprintln(&many, "p", i)
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"ends before it begins":      {[]string{"sync", "main", "--since", "2026-03-02", "--until", "2026-03-01"}, exitUsage, "the range ends before it begins"},
		"no time":                    {[]string{"sync", "main", "--since", "last week"}, exitUsage, "--since is neither a date"},
		"in the future":              {[]string{"sync", "main", "--since", "2199-01-01"}, exitUsage, "in the future"},
		"a type that isn't pulled":   {[]string{"sync", "main", "--types", "Consent"}, exitUsage, "doesn't pull Consent; its types are Patient, Observation"},
		"not compared either":        {[]string{"reconcile", "main", "--types", "Encounter"}, exitUsage, "doesn't pull Encounter"},
		"both ways to name patients": {[]string{"sync", "main", "--patient", "a", "--patients", "-"}, exitUsage, "can't be given together"},
		"nobody":                     {[]string{"sync", "main", "--patients", file("none", "\n")}, exitUsage, ""},
		"no such patient":            {[]string{"sync", "main", "--patient", "MRN-SECRET"}, exitFailed, "knows no such patient: number 1 of those given"},
		"no such file":               {[]string{"sync", "main", "--patients", "/nowhere"}, exitUsage, ""},
	} {
		got := d.starter(t, tc.args...)
		require.Equal(t, tc.code, got.code, "%s: %s", name, got.err)
		require.Contains(t, got.err, tc.says, name)
		require.NotContains(t, got.err, "MRN-SECRET")
	}
	piped := starterWith(t, "MRN-SECRET\n", append([]string{"--database-url", d.db.URL}, "sync", "main", "--patients", "-")...)
	require.Equal(t, exitFailed, piped.code, "standard input is read")
	require.Contains(t, piped.err, "number 1 of those given")
	got := d.starter(t, "sync", "main", "--patients", file("many", strings.ReplaceAll(many.String(), " ", "")))
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.err, "split the file")
}
