package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// newHospital is a sandbox EHR of a vendor, as the rehearsal starts it.
func newHospital(t *testing.T, v vendor) *hospital {
	t.Helper()
	dir := t.TempDir()
	ehr, err := startSandbox(t.Context(), dir, sandbox.Config{Vendor: v.profile, Patients: 20, Seed: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ehr.Close()) })
	return &hospital{vendor: v, dir: dir, shown: dir, ehr: ehr}
}

func TestEveryVendorThatTheSandboxActsAsIsRehearsed(t *testing.T) {
	t.Parallel()
	var names []string
	for _, v := range vendors() {
		names = append(names, v.profile)
		_, err := profile.Builtin(v.profile)
		require.NoError(t, err)
	}
	require.ElementsMatch(t, sandbox.Vendors(), names)
}

// TestTheHospitalsOfARehearsal: the faults are such as the sandbox takes, the roster commands name files that exist, and
// the Observation that is deleted is one of a patient on every roster.
func TestTheHospitalsOfARehearsal(t *testing.T) {
	t.Parallel()
	for _, v := range vendors() {
		t.Run(v.profile, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, v)
			require.NoError(t, h.ehr.SetFaults(v.faults()))
			require.NoError(t, h.ehr.SetFaults(v.windowFaults()))
			require.NotEmpty(t, v.windowFaults().Throttle.RetryAfterRaw)
			require.NoError(t, h.ehr.SetFaults(sandbox.Faults{}))

			before, err := h.source()
			require.NoError(t, err)
			require.Len(t, before, len(cura.ResourceTypes()))
			first, last := before[cura.Patient][0].ID, ""
			for _, r := range before[cura.Observation] {
				if r.of(cura.Observation) == first {
					last = r.ID
				}
			}
			spared := map[string]bool{"Observation/" + last: true}
			require.NoError(t, h.deleteOne(spared))
			after, err := h.source()
			require.NoError(t, err)
			require.Len(t, after[cura.Observation], len(before[cura.Observation])-1)
			require.True(t, slices.ContainsFunc(after[cura.Observation], func(r served) bool { return r.ID == last }), "what is spared stays")

			if v.roster == nil {
				return
			}
			command, err := v.roster(h)
			require.NoError(t, err)
			require.Equal(t, []string{"roster", command[1], "rehearsal-" + v.profile + "/ehr"}, command[:3])
			switch command[1] {
			case "enrol":
				text, err := os.ReadFile(command[3])
				require.NoError(t, err)
				people, err := parsePeople(command[3], text)
				require.NoError(t, err)
				require.Len(t, people, 20)
			case "upload":
				text, err := os.ReadFile(command[3])
				require.NoError(t, err)
				ids, err := parsePatientIDs(command[3], text)
				require.NoError(t, err)
				require.Len(t, ids, 20)
			}
		})
	}
}

func TestPeopleAreEnrolledByTheirOfficialNames(t *testing.T) {
	t.Parallel()
	var patients []served
	require.NoError(t, json.Unmarshal([]byte(`[
		{"id":"a","identifier":[{"system":"other","value":"9"},{"system":"mrn","value":"1"}],"birthDate":"1980-02-03","gender":"female",
			"name":[{"use":"maiden","family":"Old","given":["X"]},{"use":"official","family":"Bo, Jr.","given":["Ann","Marie"]}]},
		{"id":"b","identifier":[{"system":"mrn","value":"2"}],"birthDate":"1950","name":[{"text":"Text Alone"}]},
		{"id":"c","identifier":[{"system":"mrn","value":"3"}],"name":[{"given":["Nobody"]}]},
		{"id":"d","birthDate":"1950","name":[{"family":"No number"}]}]`), &patients))
	file, err := people(patients, "mrn")
	require.NoError(t, err)
	require.Equal(t, "identifier,family,given,birth_date,gender\n1,\"Bo, Jr.\",Ann,1980-02-03,female\n2,,,1950,\n", string(file))
}

func TestVerdictsOfARehearsal(t *testing.T) {
	t.Parallel()
	with := func(change func(*outcome)) outcome {
		out := outcome{profile: "epic", Phase: cura.PhaseLive, Types: map[cura.ResourceType]typeOutcome{
			cura.Patient:     {Strategy: cura.StrategySnapshot, Compared: true, Held: 2, Source: 2, Cura: 2},
			cura.Observation: {Strategy: cura.StrategySnapshot, Compared: true, Held: 9, Source: 9, Cura: 9},
		}}
		change(&out)
		return out
	}
	observation := func(change func(*typeOutcome)) func(*outcome) {
		return func(out *outcome) {
			o := out.Types[cura.Observation]
			change(&o)
			out.Types[cura.Observation] = o
		}
	}
	tests := map[string]struct {
		change func(*outcome)
		says   string
	}{
		"clean":               {func(*outcome) {}, ""},
		"waits for a person":  {func(out *outcome) { out.Why = "credentials" }, "credentials"},
		"not live":            {func(out *outcome) { out.Phase = cura.PhaseBackfill }, "phase backfill"},
		"missing":             {observation(func(o *typeOutcome) { o.Missing = 1 }), "Observation: 1 missing, 0 extra, 0 changed"},
		"extra":               {observation(func(o *typeOutcome) { o.Extra = 2 }), "0 missing, 2 extra"},
		"changed":             {observation(func(o *typeOutcome) { o.Changed = 3 }), "3 changed"},
		"not compared":        {observation(func(o *typeOutcome) { o.Compared = false }), "Observation: not compared"},
		"the source misses":   {observation(func(o *typeOutcome) { o.Source, o.Cura = 8, 8 }), "the EHR holds 9, and Cura was served 8"},
		"nothing was read":    {func(out *outcome) { out.Types = nil }, "no patient"},
		"there is nobody":     {func(out *outcome) { out.Types[cura.Patient] = typeOutcome{Compared: true} }, "no patient"},
		"two types are wrong": {func(out *outcome) { out.Types[cura.Patient], out.Types[cura.Consent] = typeOutcome{}, typeOutcome{} }, "Patient: not compared; Consent: not compared"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := with(tt.change)
			require.Equal(t, tt.says == "", out.clean())
			require.Contains(t, out.verdict(), tt.says)
		})
	}
}

// TestOutcomesArePrinted: JSON is one object by profile, tables have a row for each vendor and type, and either way what
// is wrong is an error that names the profile.
func TestOutcomesArePrinted(t *testing.T) {
	t.Parallel()
	clean := outcome{
		profile: "epic", Phase: cura.PhaseLive, RosterSource: cura.RosterEnrolment, Members: 19, Requests: 123, Throttles: 4, AbsurdRetryAfters: 2,
		Types: map[cura.ResourceType]typeOutcome{cura.Patient: {Strategy: cura.StrategySnapshot, ChosenBy: "profile", Compared: true, Held: 19, Source: 19, Cura: 19}},
	}
	waiting := outcome{profile: "hapi", Phase: cura.PhaseBackfill, Why: "Two things:\n- one", Types: map[cura.ResourceType]typeOutcome{cura.Patient: {Strategy: cura.StrategySystem}}}
	printed := func(format string, outcomes ...outcome) (string, error) {
		var text bytes.Buffer
		var err error
		app := &cli.App{
			Writer: &text, Flags: []cli.Flag{&cli.StringFlag{Name: "output"}}, HideHelp: true, HideVersion: true,
			Action: func(c *cli.Context) error {
				err = printOutcomes(c, outcomes)
				return nil
			},
		}
		oneAtATime.Lock()
		defer oneAtATime.Unlock()
		require.NoError(t, app.RunContext(t.Context(), []string{"starter", "--output", format}))
		return text.String(), err
	}

	text, err := printed("json", clean)
	require.NoError(t, err)
	require.JSONEq(t, `{"epic": {
		"phase": "live", "roster_source": "enrolment", "members": 19, "requests": 123, "throttles": 4, "errors": 0, "refused": 0, "expired": 0,
		"absurd_retry_afters": 2, "seconds": 0, "types": {"Patient": {
			"strategy": "snapshot", "chosen_by": "profile", "held": 19, "compared": true, "source": 19, "cura": 19, "missing": 0, "extra": 0,
			"changed": 0, "unreadable": 0
		}}
	}}`, text)

	text, err = printed("table", clean, waiting)
	require.ErrorContains(t, err, "  hapi: Two things:\n    - one")
	require.NotContains(t, err.Error(), "epic")
	require.Contains(t, text, "19 by enrolment")
	lines := strings.Split(text, "\n")
	require.Equal(t, []string{"hapi", "Patient", "system", "0", "-", "-", "-", "-", "-"}, strings.Fields(lines[len(lines)-2]))
}

func TestARehearsalBeginsClean(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--demo", "--exit", "--data=x", "--fault=auth"} {
		got := starter(t, "dev", "--dir", t.TempDir(), "--profiles", flag)
		require.Equal(t, exitUsage, got.code)
		require.Contains(t, got.err, "--profiles doesn't go with")
	}
	dir := t.TempDir()
	kept := filepath.Join(dir, "postgres", "kept")
	old := filepath.Join(dir, profilesDir, "epic", "people.csv")
	for _, file := range []string{kept, old} {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, nil, 0o600))
	}
	app := &cli.App{HideHelp: true, HideVersion: true, Action: func(c *cli.Context) error {
		cleaned, err := rehearsalDir(c, dir)
		require.Equal(t, filepath.Join(dir, profilesDir), cleaned)
		return err
	}}
	oneAtATime.Lock()
	defer oneAtATime.Unlock()
	require.NoError(t, app.RunContext(t.Context(), []string{"starter"}))
	require.FileExists(t, kept, "the demo's own is left alone")
	require.NoFileExists(t, old)
}
