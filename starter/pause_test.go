package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
	"github.com/cura-health/ehr-sync/workflows"
)

func TestATypeIsPausedAndResumed(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	pause := []string{"pause", "main", "--type", "Observation", "--reason", "the laboratory moves"}
	require.Contains(t, d.does(t, pause...), "Observation of st-mary/main is paused. Go on with: starter resume st-mary/main --type Observation")
	again := d.does(t, "pause", "main", "--type", "Observation", "--reason", "another")
	require.Contains(t, again, "is paused already since ")
	require.Contains(t, again, " by asserted:pat: the laboratory moves")

	var result pauseResult
	require.NoError(t, json.Unmarshal([]byte(d.does(t, append(pause, "-o", "json")...)), &result))
	require.False(t, result.Changed)
	require.Equal(t, cura.Observation, result.Paused.Type)
	require.Equal(t, "the laboratory moves", result.Paused.Reason)

	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		p, err := tx.Paused(t.Context(), l.Connection, cura.Observation)
		require.NotNil(t, p)
		return err
	}))
	require.Contains(t, d.does(t, "resume", "main", "--type", "Observation"), "Observation of st-mary/main goes on.")
	require.Contains(t, d.does(t, "resume", "main", "--type", "Observation"), "Observation of st-mary/main wasn't paused.")
	require.Equal(t, []string{"sync.paused asserted:pat", "sync.resumed asserted:pat"}, storetest.Query[string](t, d.db,
		"SELECT kind || ' ' || actor FROM audit.records WHERE kind LIKE 'sync.%' ORDER BY seq"))
}

// TestAWholeConnectionIsPausedWithoutTemporal: the pause is in the database, where readers look.
func TestAWholeConnectionIsPausedWithoutTemporal(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
	d := newDesk(t)
	d.addMain(t)
	d.does(t, "pause", "main", "--type", "Consent")
	got := d.starter(t, "pause", "main")
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.out, "st-mary/main is paused. Go on with: starter resume st-mary/main")
	require.Contains(t, got.err, "Temporal doesn't answer")
	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		for _, typ := range cura.ResourceTypes() {
			p, err := tx.Paused(t.Context(), l.Connection, typ)
			require.NoError(t, err)
			require.Empty(t, p.Type, "the whole connection's comes first")
		}
		pauses, err := tx.Pauses(t.Context(), l.Connection)
		lines := pauseLines(pauses)
		require.Len(t, lines, 2)
		require.Contains(t, lines[0], "The whole connection is paused since ")
		require.Contains(t, lines[1], "Consent is paused since ")
		return err
	}))
	// Its schedules can't be started again: it says so, and how to go on.
	refused := d.starter(t, "resume", "main")
	require.Equal(t, exitFailed, refused.code)
	require.Contains(t, refused.err, "then say again: starter resume st-mary/main")
}

func TestWhatCantBePaused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--types", "Patient,Observation")
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"unknown type":          {[]string{"pause", "main", "--type", "Condition"}, exitUsage, `"Condition"; it pulls Patient`},
		"no type":               {[]string{"resume", "main", "--type", ""}, exitUsage, "--type takes one resource type"},
		"two types":             {[]string{"pause", "main", "--type", "Patient,Observation"}, exitUsage, "--type takes one resource type"},
		"another's type":        {[]string{"pause", "main", "--type", "Consent"}, exitFailed, "st-mary/main doesn't pull Consent\n  It pulls Patient, Observation"},
		"type of a resume":      {[]string{"resume", "main", "--type", "Consent"}, exitFailed, "doesn't pull Consent"},
		"no connection":         {[]string{"pause"}, exitUsage, "takes one argument, the connection"},
		"unknown connection":    {[]string{"resume", "nope"}, exitFailed, "List them with: starter connection list"},
		"reason over two lines": {[]string{"pause", "main", "--reason", "a\nb"}, exitUsage, "on one line"},
	} {
		got := d.starter(t, tc.args...)
		require.Equal(t, tc.code, got.code, "%s: %s", name, got.err)
		require.Contains(t, got.err, tc.says, name)
	}
	require.Equal(t, []int64{0}, storetest.Query[int64](t, d.db, "SELECT count(*) FROM sync.pauses"), "nothing is stored")
}

// temporalFake has schedules and takes signals; what else is asked of it ends the test.
type temporalFake struct {
	client.Client

	schedules map[string]*client.ScheduleState
	signals   []string
	backfill  bool
}

func (f *temporalFake) ScheduleClient() client.ScheduleClient {
	return schedulesFake{states: f.schedules}
}

func (f *temporalFake) SignalWorkflow(_ context.Context, workflow, _, signal string, _ any) error {
	if !f.backfill {
		return serviceerror.NewNotFound("no such workflow")
	}
	f.signals = append(f.signals, workflow+" "+signal)
	return nil
}

type schedulesFake struct {
	client.ScheduleClient

	states map[string]*client.ScheduleState
}

func (f schedulesFake) GetHandle(_ context.Context, id string) client.ScheduleHandle {
	return scheduleFake{state: f.states[id]}
}

type scheduleFake struct {
	client.ScheduleHandle

	state *client.ScheduleState
}

func (f scheduleFake) Describe(context.Context) (*client.ScheduleDescription, error) {
	if f.state == nil {
		return nil, serviceerror.NewNotFound("no such schedule")
	}
	return &client.ScheduleDescription{Schedule: client.Schedule{State: f.state}}, nil
}

func (f scheduleFake) Pause(_ context.Context, o client.SchedulePauseOptions) error {
	f.state.Paused, f.state.Note = true, o.Note
	return nil
}

func (f scheduleFake) Unpause(_ context.Context, o client.ScheduleUnpauseOptions) error {
	f.state.Paused, f.state.Note = false, o.Note
	return nil
}

func TestAPauseStopsTheSchedulesAndAResumeStartsThoseAlone(t *testing.T) {
	t.Parallel()
	l := store.Listed{Connection: "c-1", OrgName: "st-mary", Name: "main"}
	p := store.Pause{Since: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), By: "asserted:pat", Reason: "an upgrade"}
	state := func(paused bool, note string) *client.ScheduleState {
		return &client.ScheduleState{Paused: paused, Note: note}
	}
	note := "starter pause: since 2030-01-02 03:04:05Z by asserted:pat: an upgrade"
	sync, reconcile := workflows.ScheduleID(l.Connection), workflows.ReconcileScheduleID(l.Connection)
	for name, tc := range map[string]struct {
		before, paused, after map[string]*client.ScheduleState
	}{
		"none yet": {},
		"one runs": {
			map[string]*client.ScheduleState{sync: state(false, "")},
			map[string]*client.ScheduleState{sync: state(true, note)},
			map[string]*client.ScheduleState{sync: state(false, "resumed")},
		},
		"both run": {
			map[string]*client.ScheduleState{sync: state(false, ""), reconcile: state(false, "")},
			map[string]*client.ScheduleState{sync: state(true, note), reconcile: state(true, note)},
			map[string]*client.ScheduleState{sync: state(false, "resumed"), reconcile: state(false, "resumed")},
		},
		"one was stopped by the onboarding": {
			map[string]*client.ScheduleState{sync: state(true, "the window is unhealthy"), reconcile: state(false, "")},
			map[string]*client.ScheduleState{sync: state(true, "the window is unhealthy"), reconcile: state(true, note)},
			map[string]*client.ScheduleState{sync: state(true, "the window is unhealthy"), reconcile: state(false, "resumed")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &temporalFake{schedules: tc.before}
			for range 2 {
				require.NoError(t, pauseSchedules(t.Context(), f, l, p))
				require.Equal(t, tc.paused, f.schedules)
			}
			for range 2 {
				require.NoError(t, resumeSchedules(t.Context(), f, l))
				require.Equal(t, tc.after, f.schedules)
			}
		})
	}
}

func TestAResumeWakesTheBackfillThatWaits(t *testing.T) {
	t.Parallel()
	l := store.Listed{Connection: "c-1"}
	f := &temporalFake{}
	require.NoError(t, signalResumed(t.Context(), f, l), "none is running")
	f.backfill = true
	require.NoError(t, signalResumed(t.Context(), f, l))
	require.Equal(t, []string{"backfill/c-1 resumed"}, f.signals)
}
