package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func (f *fixture) pause(t *testing.T, p store.Pause) (standing store.Pause, fresh bool) {
	t.Helper()
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		standing, fresh, err = tx.Pause(t.Context(), f.connection, p)
		return err
	}))
	return standing, fresh
}

func (f *fixture) resume(t *testing.T, typ cura.ResourceType) bool {
	t.Helper()
	var was bool
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		was, err = tx.Resume(t.Context(), f.connection, typ, "sam")
		return err
	}))
	return was
}

func (f *fixture) paused(t *testing.T, typ cura.ResourceType) *store.Pause {
	t.Helper()
	var pause *store.Pause
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		var err error
		pause, err = tx.Paused(t.Context(), f.connection, typ)
		return err
	}))
	return pause
}

func TestTheFirstPauseStands(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	first, fresh := f.pause(t, store.Pause{Type: cura.Observation, By: "pat", Reason: "the laboratory moves"})
	require.True(t, fresh)
	second, fresh := f.pause(t, store.Pause{Type: cura.Observation, By: "sam", Reason: "another"})
	require.False(t, fresh)
	require.Equal(t, first, second)
	require.False(t, first.Since.IsZero())
	require.True(t, f.resume(t, cura.Observation))
	require.False(t, f.resume(t, cura.Observation))
	require.Equal(t, []string{"sync.paused pat Observation", "sync.resumed sam Observation"}, storetest.Query[string](t, f.db,
		"SELECT kind || ' ' || actor || ' ' || (details->>'type') FROM audit.records WHERE kind LIKE 'sync.%' ORDER BY seq"))
}

func TestAConnectionAndItsTypesArePausedByThemselves(t *testing.T) {
	t.Parallel()
	f := newFixture(t, cluster.New(t))
	require.Nil(t, f.paused(t, cura.Patient))
	f.pause(t, store.Pause{Type: cura.Observation, By: "pat"})
	require.Nil(t, f.paused(t, cura.Patient))
	require.Equal(t, cura.Observation, f.paused(t, cura.Observation).Type)

	f.pause(t, store.Pause{By: "pat"})
	for _, typ := range cura.ResourceTypes() {
		require.Empty(t, f.paused(t, typ).Type, "the whole connection's")
	}
	require.NoError(t, f.in(t, func(tx *store.Tx) error {
		pauses, err := tx.Pauses(t.Context(), f.connection)
		require.Len(t, pauses, 2)
		require.Empty(t, pauses[0].Type, "the whole comes first")
		return err
	}))
	require.True(t, f.resume(t, ""))
	require.Nil(t, f.paused(t, cura.Patient))
	require.NotNil(t, f.paused(t, cura.Observation), "which was paused apart")
}

func TestAnotherConnectionIsntPaused(t *testing.T) {
	t.Parallel()
	db := cluster.New(t)
	f := newFixture(t, db)
	f.pause(t, store.Pause{By: "pat"})
	other := &fixture{db: db, org: f.org, connection: addConnection(t, db, f.org, "other")}
	require.Nil(t, other.paused(t, cura.Patient))
}
