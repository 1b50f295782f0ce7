package profile_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/profile"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	type evidence = profile.Evidence
	cases := map[string]struct {
		profile  string
		typ      cura.ResourceType
		evidence evidence
		override cura.Strategy
		want     cura.Strategy
		by       string
		reason   string
	}{
		"nothing but the profile": {"generic", cura.Observation, evidence{}, "", cura.StrategySystem, "profile", "General FHIR servers take"},

		"metadata agrees":      {"generic", cura.Observation, evidence{Known: true, Listed: true}, "", cura.StrategySystem, "metadata", "lists _lastUpdated"},
		"metadata doesn't":     {"generic", cura.Observation, evidence{Known: true}, "", cura.StrategySnapshot, "metadata", "doesn't list _lastUpdated"},
		"metadata on a roster": {"oracle", cura.Observation, evidence{Known: true}, "", cura.StrategySnapshot, "metadata", "doesn't list _lastUpdated"},

		"a probe goes before metadata": {"generic", cura.Observation, evidence{Known: true, Probed: true, SystemSearch: true, TakesSince: true}, "", cura.StrategySystem, "probe", "took a search of the whole system"},
		"a probe refutes metadata":     {"generic", cura.Observation, evidence{Known: true, Listed: true, Probed: true}, "", cura.StrategySnapshot, "probe", "doesn't take a search of the whole system"},
		"system fails, roster works":   {"medplum", cura.Observation, evidence{Probed: true, TakesSince: true}, "", cura.StrategyRoster, "probe", "but takes patient and _lastUpdated"},
		"system fails, for patients":   {"hapi", cura.Patient, evidence{Probed: true, TakesSince: true}, "", cura.StrategySnapshot, "probe", "read by id"},
		"roster works":                 {"oracle", cura.Observation, evidence{Probed: true, TakesSince: true}, "", cura.StrategyRoster, "probe", "took patient and _lastUpdated"},
		"roster doesn't":               {"oracle", cura.Observation, evidence{Known: true, Listed: true, Probed: true}, "", cura.StrategySnapshot, "probe", "not with _lastUpdated"},

		"a snapshot stays":                 {"epic", cura.Observation, evidence{Known: true, Listed: true, Probed: true, SystemSearch: true, TakesSince: true}, "", cura.StrategySnapshot, "profile", "Epic wants a patient"},
		"a snapshot stays, for patients":   {"athena", cura.Patient, evidence{Probed: true}, "", cura.StrategySnapshot, "profile", "athenahealth searches no whole system"},
		"an operator goes before all":      {"epic", cura.Observation, evidence{Known: true}, cura.StrategySystem, cura.StrategySystem, "operator", "An operator chose it."},
		"an operator against the probe":    {"generic", cura.Observation, evidence{Probed: true, TakesSince: true}, cura.StrategySystem, cura.StrategySystem, "operator", "though the server didn't take a search of the whole system"},
		"an operator's roster, refuted":    {"epic", cura.Observation, evidence{Probed: true}, cura.StrategyRoster, cura.StrategyRoster, "operator", "though the server didn't take patient and _lastUpdated"},
		"an operator's roster, confirmed":  {"epic", cura.Observation, evidence{Probed: true, TakesSince: true}, cura.StrategyRoster, cura.StrategyRoster, "operator", "An operator chose it."},
		"an operator's roster of patients": {"generic", cura.Patient, evidence{}, cura.StrategyRoster, cura.StrategySnapshot, "operator", "read one by one by id"},

		"a type that isn't offered": {"generic", "Goal", evidence{Probed: true}, "", "", "profile", "doesn't have the type"},
		"unless an operator asks":   {"generic", "Goal", evidence{}, cura.StrategySnapshot, cura.StrategySnapshot, "operator", "An operator chose it."},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := profile.Choose(builtin(t, test.profile), test.typ, test.evidence, test.override)
			require.Equal(t, test.typ, got.Type)
			require.Equal(t, test.want, got.Strategy, got.Reason)
			require.Equal(t, test.by, got.ChosenBy, got.Reason)
			require.Contains(t, got.Reason, test.reason)
		})
	}
}

// TestChooseSaysWhatItCanMiss: the profile's own words hold for its own strategy alone.
func TestChooseSaysWhatItCanMiss(t *testing.T) {
	t.Parallel()
	oracle := builtin(t, "oracle")
	own := profile.Choose(oracle, cura.Observation, profile.Evidence{}, "").CanMiss
	require.Contains(t, own, "clinically minor changes")
	require.Contains(t, own, "nightly reconcile")
	fallen := profile.Choose(oracle, cura.Observation, profile.Evidence{Probed: true}, "").CanMiss
	require.Contains(t, fallen, "between two passes")
	require.NotContains(t, fallen, "clinically minor changes")
	system := profile.Choose(builtin(t, "hapi"), cura.Observation, profile.Evidence{}, "").CanMiss
	require.Contains(t, system, "whose lastUpdated the server doesn't move")
	require.NotContains(t, system, "roster")
}

// TestChooseAlwaysSaysWhy tries every evidence on every profile.
func TestChooseAlwaysSaysWhy(t *testing.T) {
	t.Parallel()
	profiles := map[string]*profile.Profile{}
	for _, name := range profile.Names() {
		profiles[name] = builtin(t, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		e := profile.Evidence{
			Known: rapid.Bool().Draw(t, "known"), Listed: rapid.Bool().Draw(t, "listed"), Probed: rapid.Bool().Draw(t, "probed"),
			SystemSearch: rapid.Bool().Draw(t, "system search"), TakesSince: rapid.Bool().Draw(t, "takes since"), NotOffered: []string{"survey"},
		}
		typ := rapid.SampledFrom(cura.ResourceTypes()).Draw(t, "type")
		override := rapid.SampledFrom(append(cura.Strategies(), "")).Draw(t, "override")
		c := profile.Choose(profiles[rapid.SampledFrom(profile.Names()).Draw(t, "profile")], typ, e, override)
		require.True(t, c.Strategy.Known())
		require.NotEmpty(t, c.Reason)
		require.NotEmpty(t, c.CanMiss)
		require.Equal(t, []string{"survey"}, c.NotOffered)
		require.Equal(t, override != "", c.ChosenBy == profile.ByOperator)
		require.False(t, typ == cura.Patient && c.Strategy == cura.StrategyRoster, "patients are read by id")
		if c.Strategy == cura.StrategySystem && e.Probed && override == "" {
			require.True(t, e.SystemSearch, "never what a probe has refuted")
		}
	})
}
