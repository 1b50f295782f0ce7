package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConnectionSaysWhatBecomesOfUnmatchedPatients(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	require.Contains(t, d.does(t, "connection", "show", "main"), "gets a new one (new)", "the default")

	d.does(t, "connection", "edit", "main", "--unmatched", "review")
	require.Contains(t, d.does(t, "connection", "show", "main"), "a person decides about a patient for whom no profile is found (review)")

	d.does(t, "connection", "edit", "main", "--match", "national-id:urn:oid:9.9")
	require.Contains(t, d.does(t, "connection", "show", "main", "--output", "json"), `"unmatched": "review"`, "another identifier leaves the policy")

	wrong := d.starter(t, "connection", "edit", "main", "--unmatched", "guess")
	require.Equal(t, exitUsage, wrong.code)
	require.Contains(t, wrong.err, `--unmatched: policy "guess"`)
	require.Contains(t, wrong.err, "new or review")
}
