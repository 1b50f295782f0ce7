package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// halts runs halt or unhalt and reads what became of the switches.
func (d desk) halts(t *testing.T, args ...string) []haltResult {
	t.Helper()
	var results []haltResult
	d.reads(t, &results, args...)
	return results
}

func TestKillSwitchesWorkWithoutTemporal(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
	w := newWard(t)
	w.does(t, "org", "add", "st-joseph")
	set := w.halts(t, "halt", "pushes", "--org", "st-mary", "--reason", "a wrong link")
	require.Len(t, set, 1)
	require.True(t, set[0].Changed)
	require.False(t, set[0].EffectiveAt.Before(*set[0].SetAt))
	again := w.halts(t, "halt", "pushes", "--org", "st-mary")
	require.False(t, again[0].Changed)
	require.Equal(t, set[0].SetAt, again[0].SetAt)
	require.Contains(t, w.does(t, "halt", "pulls", "--connection", "main"), "starter unhalt pulls --connection st-mary/main")
	all := w.halts(t, "halt", "pulls", "--all")
	require.Len(t, all, 2, "every live org")
	require.Len(t, storetest.Query[string](t, w.db, "SELECT halt_id::text FROM sync.halts WHERE lifted_at IS NULL"), 4)

	for _, args := range [][]string{{"status"}, {"status", "main"}, {"connection", "show", "main"}, {"attention"}, {"deliveries"}} {
		got := w.starter(t, args...)
		require.Contains(t, got.out+got.err, "a wrong link", args)
		require.Contains(t, got.out+got.err, "starter unhalt pushes --org st-mary", args)
		require.Contains(t, got.out+got.err, "starter unhalt pulls --connection st-mary/main", args)
	}
	require.True(t, storetest.Query[bool](t, w.db, "SELECT attention FROM directory.connections c JOIN directory.orgs o USING (org_id) WHERE o.kind = 'live'")[0])

	require.True(t, w.halts(t, "unhalt", "pulls", "--all")[0].Changed)
	require.False(t, w.halts(t, "unhalt", "pulls", "--org", "st-mary")[0].Changed)
	require.True(t, w.halts(t, "unhalt", "pulls", "--connection", "st-mary/main")[0].Changed)
	require.True(t, w.halts(t, "unhalt", "pushes", "--org", "st-mary")[0].Changed)
	require.Equal(t, exitDone, w.starter(t, "attention").code)
	require.Len(t, w.audited(t, "halt.set"), 4)
	require.Len(t, w.audited(t, "halt.lifted"), 4)
}

func TestAHaltOfPullsIsAPauseForReaders(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.does(t, "pause", "main", "--type", "Observation")
	paused := func() *store.Pause {
		t.Helper()
		var p *store.Pause
		require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
			var err error
			p, err = tx.Paused(t.Context(), w.l.Connection, cura.Observation)
			return err
		}))
		return p
	}
	require.Equal(t, cura.Observation, paused().Type)
	w.does(t, "halt", "pulls", "--connection", "main", "--reason", "the server is moved")
	p := paused()
	require.True(t, p.Halt, "before a pause")
	require.Equal(t, "asserted:pat", p.By)
	require.Equal(t, "the server is moved", p.Reason)
	require.Contains(t, w.does(t, "connection", "show", "main"), "halted since")

	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		return tx.SetStanding(t.Context(), w.l.Connection, store.Standing{Phase: cura.PhaseLive, Health: cura.HealthOK, WaitsFor: cura.WaitsForNobody}, "test")
	}))
	got := w.starter(t, "sync", "main")
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.err, "st-mary/main reads nothing: pulls since")
	require.Contains(t, got.err, "the server is moved\n  Lift it with: starter unhalt pulls --connection st-mary/main")
	w.does(t, "unhalt", "pulls", "--connection", "main")
	require.Equal(t, cura.Observation, paused().Type)
	w.does(t, "halt", "pushes", "--org", "st-mary")
	require.False(t, paused().Halt, "pushes are something else")
}

// TestAHaltIsEffectiveOnceNothingIsOnTheWire: it waits for the deadline of what was sent before.
func TestAHaltIsEffectiveOnceNothingIsOnTheWire(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := w.push(t, note("n-1", "phi-p1"))[0]
	item := w.item(t, id)
	require.NoError(t, w.db.EnsureHead(t.Context(), w.l.Org, item.Profile))
	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		if err := tx.PutIntent(t.Context(), store.Intent{Item: item, Resource: "DocumentReference"}); err != nil {
			return err
		}
		return tx.MarkSent(t.Context(), item, 700*time.Millisecond)
	}))
	deadline := *w.item(t, id).Delivery.SendDeadline
	set := w.halts(t, "halt", "pushes", "--org", "st-mary")
	require.False(t, set[0].EffectiveAt.Before(deadline))
}

func TestHaltUsage(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"what":       {[]string{"halt", "everything", "--all"}, "pushes and pulls can"},
		"nothing":    {[]string{"halt", "--all"}, "takes one argument"},
		"where":      {[]string{"halt", "pushes"}, "say one of --org"},
		"two places": {[]string{"unhalt", "pushes", "--all", "--org", "a"}, "say one of --org"},
		"reason":     {[]string{"halt", "pushes", "--all", "--reason", "a\nb"}, "on one line"},
	} {
		got := starter(t, append(tc.args, "--database-url", nowhere)...)
		require.Equal(t, exitUsage, got.code, "%s: %s", name, got.err)
		require.Contains(t, got.err, tc.says, name)
	}
	d := newDesk(t)
	require.Equal(t, exitFailed, d.starter(t, "halt", "pushes", "--org", "nope").code)
	require.Equal(t, exitFailed, d.starter(t, "halt", "pushes", "--connection", "nope").code)
	require.Empty(t, d.halts(t, "halt", "pushes", "--all"))
}
