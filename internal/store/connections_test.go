package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func (f *fixture) settings(t *testing.T) cura.Connection {
	t.Helper()
	var c store.ConnectionState
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		c, err = tx.Connection(t.Context(), f.connection)
		return err
	}))
	return c.Connection
}

// edit changes settings of the fixture's connection.
func (f *fixture) edit(t *testing.T, change func(*cura.Connection)) {
	t.Helper()
	c := f.settings(t)
	change(&c)
	require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.EditConnection(t.Context(), c, "test") }))
}

func TestSettingsOfProfileAndRosterAreKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	require.Equal(t, cura.RosterEnrolment, f.settings(t).RosterSource, "the default")
	f.edit(t, func(c *cura.Connection) {
		c.EHRProfile, c.ProfileText = "own", "name: own\n"
		c.ProfileParams = map[string]string{"practice": "Organization/a-1.Practice-1"}
		c.Strategies = map[cura.ResourceType]cura.Strategy{cura.Observation: cura.StrategySnapshot, cura.Patient: cura.StrategyRoster}
		c.RosterSource, c.GroupID = cura.RosterGroup, "g1"
		c.Scopes = nil
	})
	c := f.settings(t)
	require.Empty(t, c.Scopes, "as Epic wants it")
	require.Equal(t, "name: own\n", c.ProfileText)
	require.Equal(t, map[string]string{"practice": "Organization/a-1.Practice-1"}, c.ProfileParams)
	require.Equal(t, map[cura.ResourceType]cura.Strategy{cura.Observation: cura.StrategySnapshot, cura.Patient: cura.StrategyRoster}, c.Strategies)
	require.Equal(t, cura.RosterGroup, c.RosterSource)
	require.Equal(t, "g1", c.GroupID)
	require.Equal(t, []string{"Patient=roster", "Observation=snapshot"}, storetest.Query[[]string](t, f.db, "SELECT strategies FROM sync.connections")[0])
}

func TestWhatChangesTheMeaningOfAReadMakesItBeginAgain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*cura.Connection)
		left   []string
	}{
		"nothing":          {func(*cura.Connection) {}, []string{"Encounter", "Observation", "Patient"}},
		"the client":       {func(c *cura.Connection) { c.ClientID = "other" }, []string{"Encounter", "Observation", "Patient"}},
		"the server":       {func(c *cura.Connection) { c.BaseURL = "https://other.example" }, []string{}},
		"the profile":      {func(c *cura.Connection) { c.EHRProfile = "epic" }, []string{}},
		"the profile file": {func(c *cura.Connection) { c.ProfileText = "name: generic\n" }, []string{}},
		"a parameter":      {func(c *cura.Connection) { c.ProfileParams = map[string]string{"practice": "2"} }, []string{}},
		"a strategy": {func(c *cura.Connection) {
			c.Strategies = map[cura.ResourceType]cura.Strategy{cura.Observation: cura.StrategySnapshot}
		}, []string{"Encounter", "Patient"}},
		"the source of the roster": {func(c *cura.Connection) { c.RosterSource = cura.RosterList }, []string{"Encounter", "Observation", "Patient"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, cluster.New(t))
			for _, typ := range []cura.ResourceType{cura.Patient, cura.Observation, cura.Encounter} {
				superuser(t, f.db, `INSERT INTO sync.watermarks (org_id, connection_id, resource_type, watermark) VALUES ($1, $2, $3, now())`, f.org, f.connection, typ)
				superuser(t, f.db, `INSERT INTO sync.cursors (org_id, connection_id, resource_type, run_id, next_link) VALUES ($1, $2, $3, $4, '')`, f.org, f.connection, typ, f.run)
				superuser(t, f.db, `INSERT INTO sync.strategies (org_id, connection_id, resource_type, strategy, chosen_by, reason) VALUES ($1, $2, $3, 'system', 'probe', 'seen')`, f.org, f.connection, typ)
			}
			f.edit(t, tc.change)
			for _, table := range []string{"sync.watermarks", "sync.cursors", "sync.strategies"} {
				left := append([]string{}, storetest.Query[string](t, f.db, "SELECT resource_type FROM "+table+" ORDER BY 1")...)
				require.Equal(t, tc.left, left, table)
			}
		})
	}
}

func TestARemovedConnectionAsksForNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	f.addMembers(t, cura.RosterList, "p1")
	f.enrol(t, store.Enrolment{Value: "1", Family: "A"})
	require.NoError(t, f.in(t, func(tx *store.Tx) error { return tx.RemoveConnection(t.Context(), f.connection, "test") }))
	require.Empty(t, storetest.Query[string](t, f.db, "SELECT value FROM sync.enrolments"))
	require.Empty(t, f.members(t))
}
