package activities_test

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
)

// The client of a connection asks the pacer before every request.
var _ ehr.Pace = (*activities.Pacer)(nil)

// worker is one more worker on the hospital's database.
func (h *hospital) worker(t *testing.T, change func(*config.Config)) *activities.Activities {
	t.Helper()
	cfg, err := config.Read()
	require.NoError(t, err)
	cfg.RetryInitial, cfg.RetryMax = time.Millisecond, 2*time.Millisecond
	if change != nil {
		change(&cfg)
	}
	a, err := activities.New(h.db.Store, h.sealer, cfg, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(a.Close)
	return a
}

// vendor is an EHR profile with so many requests at once and 200 resources a page.
func vendor(concurrency int) *profile.Profile {
	return &profile.Profile{Name: "test", PageSize: 200, Concurrency: concurrency}
}

// answer sends one request that is answered so.
func answer(t *testing.T, p *activities.Pacer, o ehr.Outcome) {
	t.Helper()
	require.NoError(t, p.Wait(t.Context()))
	p.Done(o)
}

// tooSoon is the fault of a request whose turn doesn't come for a while.
func tooSoon(t *testing.T, p *activities.Pacer) *fault.Error {
	t.Helper()
	var f *fault.Error
	require.ErrorAs(t, p.Wait(t.Context()), &f)
	require.Contains(t, []fault.Kind{fault.Throttled, fault.Transient}, f.Kind)
	return f
}

func TestAnUnhurriedConnectionCostsNoStatement(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	p := h.worker(t, nil).PaceOf(h.target, vendor(4))
	for range 200 {
		answer(t, p, ehr.Outcome{Status: http.StatusOK})
	}
	require.Equal(t, int64(0), h.stored(t, "SELECT count(*) FROM sync.pace"))
	require.Equal(t, 500, p.PageSize(500))
	require.Equal(t, 9, p.Concurrency(9))
}

func TestNoMoreRequestsAreUnderWayThanTheProfileAllows(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	p := h.worker(t, nil).PaceOf(h.target, vendor(3))
	var busy, most atomic.Int64
	var group errgroup.Group
	for range 60 {
		group.Go(func() error {
			if err := p.Wait(t.Context()); err != nil {
				return err
			}
			n := busy.Add(1)
			for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
			}
			busy.Add(-1)
			p.Done(ehr.Outcome{Status: http.StatusOK})
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.LessOrEqual(t, most.Load(), int64(3))

	for range 3 {
		require.NoError(t, p.Wait(t.Context()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.Wait(ctx), context.Canceled, "a fourth waits, and can be cancelled")
	fourth := make(chan error, 1)
	go func() { fourth <- p.Wait(t.Context()) }()
	p.Done(ehr.Outcome{}) // cancelled on our side: nothing is learnt, the place is free
	require.NoError(t, <-fourth)
}

func TestABudgetIsSharedByWorkers(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	one, other := h.worker(t, nil), h.worker(t, nil)
	slow := vendor(4)
	slow.RequestsPerMinute = 1
	answer(t, one.PaceOf(h.target, slow), ehr.Outcome{Status: http.StatusOK})
	f := tooSoon(t, other.PaceOf(h.target, slow))
	require.Contains(t, f.Detail, "budget")
	require.Greater(t, f.RetryAfter, 30*time.Second)
	require.LessOrEqual(t, f.RetryAfter, time.Minute+time.Millisecond)
}

func TestAThrottleIsHeededByAllWorkersAndOutlivesThem(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	one, other := h.worker(t, nil), h.worker(t, nil)
	p := one.PaceOf(h.target, vendor(8))
	require.NoError(t, p.Wait(t.Context()))
	p.Done(ehr.Outcome{Status: http.StatusServiceUnavailable, RetryAfter: 10 * time.Minute, Absurd: true})
	for _, p := range []*activities.Pacer{p, other.PaceOf(h.target, vendor(8))} {
		require.NoError(t, p.Recall(t.Context()))
		require.Equal(t, 100, p.PageSize(200), "before the first request")
		f := tooSoon(t, p)
		require.Contains(t, f.Detail, "asked for a pause")
		require.InDelta(t, 600, f.RetryAfter.Seconds(), 60)
		require.Equal(t, 50, p.PageSize(50), "a type whose pages are smaller anyway")
		require.Equal(t, 4, p.Concurrency(8))
	}
	require.Equal(t, int64(1), h.stored(t, "SELECT throttles + absurd_retry_after - 1 FROM sync.pace"))
}

func TestAShortHoldIsSatOut(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	p := h.worker(t, nil).PaceOf(h.target, vendor(8))
	answer(t, p, ehr.Outcome{Status: http.StatusTooManyRequests, RetryAfter: time.Millisecond})
	answer(t, p, ehr.Outcome{Status: http.StatusTooManyRequests}) // it doesn't say how long: as long as between attempts
	answer(t, p, ehr.Outcome{Status: http.StatusOK})
	require.Equal(t, int64(2), h.stored(t, "SELECT throttles FROM sync.pace"))
}

func TestWhatAnAnswerSaysAboutThePace(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	other := h.twin(t)
	for name, tc := range map[string]struct {
		outcome             ehr.Outcome
		throttles, failures int
	}{
		"good":                         {ehr.Outcome{Status: 200}, 0, 0},
		"forbidden is an answer":       {ehr.Outcome{Status: 403}, 0, 0},
		"not implemented is an answer": {ehr.Outcome{Status: 501}, 0, 0},
		"throttled":                    {ehr.Outcome{Status: 429}, 1, 0},
		"unavailable for a time":       {ehr.Outcome{Status: 503, RetryAfter: time.Millisecond}, 1, 0},
		"unavailable for who knows":    {ehr.Outcome{Status: 503, Absurd: true}, 1, 0},
		"unavailable":                  {ehr.Outcome{Status: 503}, 0, 1},
		"server error":                 {ehr.Outcome{Status: 500}, 0, 1},
		"request timeout":              {ehr.Outcome{Status: 408}, 0, 1},
		"no answer":                    {ehr.Outcome{Err: true}, 0, 1},
		"half an answer":               {ehr.Outcome{Status: 200, Err: true}, 0, 1},
		"cancelled on our side":        {ehr.Outcome{}, 0, 0},
	} {
		// One worker each: what the last one has left is read, not known.
		p := h.worker(t, nil).PaceOf(other, vendor(8))
		answer(t, p, ehr.Outcome{Status: 200})
		before := h.paceOf(t, other)
		answer(t, p, tc.outcome)
		after := h.paceOf(t, other)
		require.EqualValues(t, tc.throttles, after.Throttles-before.Throttles, name)
		require.Equal(t, tc.failures, after.FailuresInARow, name)
	}
}

func (h *hospital) paceOf(t *testing.T, target activities.Target) store.Pace {
	t.Helper()
	var pace store.Pace
	require.NoError(t, h.db.InOrg(t.Context(), target.Org, func(tx *store.Tx) error {
		var err error
		pace, err = tx.PaceOf(t.Context(), target.Connection)
		return err
	}))
	return pace
}

func TestADownConnectionIsLeftAloneByAllWorkers(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	rarely := func(c *config.Config) { c.ProbeInitial, c.ProbeMax = time.Hour, time.Hour }
	one, other := h.worker(t, rarely), h.worker(t, rarely)
	p := one.PaceOf(h.target, vendor(4))
	for range store.DownAfter {
		answer(t, p, ehr.Outcome{Err: true})
	}
	for _, p := range []*activities.Pacer{p, other.PaceOf(h.target, vendor(4))} {
		f := tooSoon(t, p)
		require.Contains(t, f.Detail, "the EHR is down")
		require.Greater(t, f.RetryAfter, 40*time.Minute)
	}
	require.NoError(t, p.Insist().Wait(t.Context()), "a person wants to know now")
	require.Contains(t, tooSoon(t, p).Detail, "the EHR is down", "others still leave it alone")
	p.Insist().Done(ehr.Outcome{Status: 200})
	answer(t, p, ehr.Outcome{Status: 200})
}

func TestAProbeThatIsAnsweredOpensTheWayAgain(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	p := h.worker(t, func(c *config.Config) { c.ProbeInitial, c.ProbeMax = time.Millisecond, time.Millisecond }).PaceOf(h.target, vendor(4))
	for range 2 * store.DownAfter {
		answer(t, p, ehr.Outcome{Status: 500})
	}
	require.True(t, h.paceOf(t, h.target).Down())
	answer(t, p, ehr.Outcome{Status: 200})
	require.True(t, h.paceOf(t, h.target).Free(0))
}

func TestAnOrgTakesItsShareOfTheSlotsAndNoMore(t *testing.T) {
	t.Parallel()
	h := newHospital(t, options{})
	a := h.worker(t, func(c *config.Config) { c.OrgSlots = 2 })
	const crowded, other = cura.OrgID("crowded"), cura.OrgID("other")
	release, ok := a.TakeSlot(crowded)
	require.True(t, ok)
	_, ok = a.TakeSlot(crowded)
	require.True(t, ok)
	_, ok = a.TakeSlot(crowded)
	require.False(t, ok, "the rest is for others")
	_, ok = a.TakeSlot(other)
	require.True(t, ok)
	release()
	_, ok = a.TakeSlot(crowded)
	require.True(t, ok)
}
