package store_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// paced is a connection with two workers on it, whose pace is kept by a clock that the test moves.
type paced struct {
	*fixture

	workers [2]*store.Store
	super   *pgx.Conn
	now     time.Time
}

func newPaced(t *testing.T) *paced {
	t.Helper()
	db := cluster.New(t)
	second, err := store.Open(t.Context(), db.URL)
	require.NoError(t, err)
	t.Cleanup(second.Close)
	super, err := pgx.Connect(t.Context(), db.SuperuserURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = super.Close(t.Context()) })
	p := &paced{fixture: newFixture(t, db), workers: [2]*store.Store{db.Store, second}, super: super, now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, sql := range []string{
		`CREATE TABLE public.fake_clock (at timestamptz)`, `INSERT INTO public.fake_clock VALUES ('2030-01-01Z')`,
		`GRANT SELECT ON public.fake_clock TO cura_app`,
		`CREATE OR REPLACE FUNCTION sync.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT at FROM public.fake_clock'`,
	} {
		_, err := super.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	return p
}

// goBy lets time go by.
func (p *paced) goBy(t *testing.T, d time.Duration) {
	t.Helper()
	p.now = p.now.Add(d)
	_, err := p.super.Exec(t.Context(), `UPDATE public.fake_clock SET at = $1`, p.now)
	require.NoError(t, err)
}

// probing gives the connections of these tests.
func probing() store.Probing { return store.Probing{Initial: 5 * time.Second, Max: 5 * time.Minute} }

// take asks for the turn of one request, as one of the workers.
func (p *paced) take(t *testing.T, worker, profileBudget int) store.Turn {
	t.Helper()
	var turn store.Turn
	require.NoError(t, p.workers[worker].InOrg(t.Context(), p.org, func(tx *store.Tx) error {
		var err error
		turn, err = tx.TakeToken(t.Context(), p.connection, profileBudget, probing())
		return err
	}))
	return turn
}

func (p *paced) pace(t *testing.T) store.Pace {
	t.Helper()
	var pace store.Pace
	require.NoError(t, p.in(t, func(tx *store.Tx) error {
		var err error
		pace, err = tx.PaceOf(t.Context(), p.connection)
		return err
	}))
	return pace
}

// full is what the connection of these tests does when nothing throttles it.
func full() store.Capacity { return store.Capacity{PageSize: 200, Concurrency: 8} }

func (p *paced) throttled(t *testing.T, hold time.Duration) store.Pace {
	t.Helper()
	var pace store.Pace
	require.NoError(t, p.in(t, func(tx *store.Tx) error {
		var err error
		pace, err = tx.Throttled(t.Context(), p.connection, store.Throttle{Hold: hold, Full: full()})
		return err
	}))
	return pace
}

func (p *paced) failed(t *testing.T, worker int) (store.Pace, *store.Episode) {
	t.Helper()
	var pace store.Pace
	var episode *store.Episode
	require.NoError(t, p.workers[worker].InOrg(t.Context(), p.org, func(tx *store.Tx) error {
		var err error
		pace, episode, err = tx.Failed(t.Context(), p.connection, probing())
		return err
	}))
	return pace, episode
}

func (p *paced) succeeded(t *testing.T, worker int) (store.Pace, *store.Episode) {
	t.Helper()
	var pace store.Pace
	var episode *store.Episode
	require.NoError(t, p.workers[worker].InOrg(t.Context(), p.org, func(tx *store.Tx) error {
		var err error
		pace, episode, err = tx.Succeeded(t.Context(), p.connection, full())
		return err
	}))
	return pace, episode
}

// TestTwoWorkersTogetherKeepToTheBudget draws budgets and stretches of time, takes all that is given, and counts the
// requests of every minute that begins with one of them.
func TestTwoWorkersTogetherKeepToTheBudget(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	rapid.Check(t, func(r *rapid.T) {
		_, err := p.super.Exec(t.Context(), `DELETE FROM sync.pace`)
		require.NoError(r, err)
		budget := rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(6, 400)).Draw(r, "budget")
		var sent []time.Time
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			turn := p.take(t, rapid.IntRange(0, 1).Draw(r, "worker"), budget)
			for ; turn.Wait == 0; turn = p.take(t, len(sent)%2, budget) {
				sent = append(sent, p.now)
			}
			require.Equal(r, store.TurnForBudget, turn.For)
			if rapid.Bool().Draw(r, "in time") {
				p.goBy(t, turn.Wait)
				require.Zero(r, p.take(t, 0, budget).Wait, "who waits as long as told is let through")
				sent = append(sent, p.now)
				continue
			}
			p.goBy(t, time.Duration(rapid.IntRange(0, 70_000).Draw(r, "ms"))*time.Millisecond)
		}
		for i, first := range sent {
			n := 0
			for _, s := range sent[i:] {
				if s.Before(first.Add(time.Minute)) {
					n++
				}
			}
			require.LessOrEqual(r, n, budget, "requests in the minute that begins at %s", first)
		}
	})
}

// TestABusyMinuteGetsItsBudgetAndNoMore begins with a full bucket, when a minute sees the most.
func TestABusyMinuteGetsItsBudgetAndNoMore(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	for _, budget := range []int{1, 7, 60, 61, 90, 200, 600} {
		p.goBy(t, 2*time.Minute)
		began, sent := p.now, 0
		for p.now.Before(began.Add(time.Minute)) {
			turn := p.take(t, sent%2, budget)
			if turn.Wait == 0 {
				sent++
			}
			p.goBy(t, turn.Wait)
		}
		require.LessOrEqual(t, sent, budget)
		require.GreaterOrEqual(t, sent, budget-1, "what waiting by the millisecond may cost")
	}
}

func TestWorkersThatAskAtOnceShareTheBurst(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	const budget = 600 // ten a second
	var given atomic.Int64
	var group errgroup.Group
	for i := range 40 {
		group.Go(func() error {
			return p.workers[i%2].InOrg(t.Context(), p.org, func(tx *store.Tx) error {
				turn, err := tx.TakeToken(t.Context(), p.connection, budget, probing())
				if err == nil && turn.Wait == 0 {
					given.Add(1)
				}
				return err
			})
		})
	}
	require.NoError(t, group.Wait())
	require.EqualValues(t, 10, given.Load(), "one second's worth, whoever asks")
}

func TestTheConnectionsOwnBudgetGoesBeforeTheProfiles(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	require.NoError(t, p.in(t, func(tx *store.Tx) error { return tx.SetBudget(t.Context(), p.connection, 60, "pat") }))
	require.Equal(t, 60, p.pace(t).RequestsPerMinute)
	require.False(t, p.pace(t).Free(0))
	require.Zero(t, p.take(t, 0, 6000).Wait)
	require.Equal(t, store.Turn{Wait: time.Second + time.Millisecond, For: store.TurnForBudget}, p.take(t, 1, 6000))

	require.NoError(t, p.in(t, func(tx *store.Tx) error { return tx.SetBudget(t.Context(), p.connection, 0, "pat") }))
	require.True(t, p.pace(t).Free(0), "nothing is to be asked")
	require.False(t, p.pace(t).Free(6000), "the profile's counts again")
	require.Zero(t, p.take(t, 0, 0).Wait, "no budget")
	require.Equal(t, []string{"60", "0"}, storetest.Query[string](t, p.db,
		"SELECT details->>'requests_per_minute' FROM audit.records WHERE kind = 'connection.edited' AND actor = 'pat' ORDER BY seq"))
}

func TestWrongSettingsOfThePaceAreRefused(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	require.True(t, fault.Is(p.in(t, func(tx *store.Tx) error { return tx.SetBudget(t.Context(), p.connection, -1, "pat") }), fault.Config))
	require.True(t, fault.Is(p.in(t, func(tx *store.Tx) error { return tx.SetAlertAfter(t.Context(), p.connection, 0, "pat") }), fault.Config))
	require.Equal(t, store.DefaultAlertAfter, p.pace(t).AlertAfter, "of a connection that nothing is known of")
}

func TestAThrottleHoldsAllWorkersAndHalvesOnce(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	pace := p.throttled(t, 10*time.Second)
	require.Equal(t, 100, pace.PageSize)
	require.Equal(t, 4, pace.Concurrency)
	require.False(t, pace.Free(0))
	for worker := range p.workers {
		require.Equal(t, store.Turn{Wait: 10*time.Second + time.Millisecond, For: store.TurnForHold}, p.take(t, worker, 0))
	}
	// The others of the same crowd: a shorter hold doesn't end a longer one.
	pace = p.throttled(t, 5*time.Second)
	require.Equal(t, 100, pace.PageSize)
	require.Equal(t, 4, pace.Concurrency)
	require.EqualValues(t, 2, pace.Throttles)
	require.Equal(t, p.now.Add(10*time.Second), pace.HeldUntil.UTC())

	p.goBy(t, 10*time.Second)
	require.Zero(t, p.take(t, 1, 0).Wait)
	require.True(t, p.pace(t).Free(0))
	for range 10 {
		pace = p.throttled(t, time.Second)
		p.goBy(t, time.Second)
	}
	require.Equal(t, store.SmallestPage, pace.PageSize)
	require.Equal(t, 1, pace.Concurrency)
}

func TestWhatThrottlingTookComesBackStepByStep(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	p.throttled(t, time.Second)
	p.goBy(t, time.Second)
	var sizes, slots []int
	for p.pace(t).Learnt() {
		for range store.RecoverAfter {
			p.succeeded(t, len(sizes)%2)
		}
		sizes, slots = append(sizes, p.pace(t).PageSize), append(slots, p.pace(t).Concurrency)
	}
	require.Equal(t, []int{120, 140, 160, 180, 0}, sizes, "0: full again")
	require.Equal(t, []int{5, 6, 7, 0, 0}, slots)
	require.EqualValues(t, 1, p.pace(t).Throttles, "which isn't forgotten")
}

func TestAbsurdAnswersAreCounted(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	require.NoError(t, p.in(t, func(tx *store.Tx) error {
		_, err := tx.Throttled(t.Context(), p.connection, store.Throttle{Hold: time.Second, Absurd: true, Full: store.Capacity{PageSize: 4, Concurrency: 1}})
		return err
	}))
	pace := p.pace(t)
	require.Equal(t, 1, pace.AbsurdRetryAfters)
	require.Equal(t, 4, pace.PageSize, "a page that is small by itself isn't halved")
	require.Equal(t, 1, pace.Concurrency)
}

func TestAConnectionThatIsDownIsProbedNotHammered(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	for i := range store.DownAfter {
		require.Zero(t, p.take(t, i%2, 0).Wait, "it isn't down yet")
		p.failed(t, i%2)
	}
	require.True(t, p.pace(t).Down())
	var tried []time.Duration
	down := p.now
	for p.now.Sub(down) < time.Hour {
		turn := p.take(t, len(tried)%2, 0)
		if turn.Wait > 0 {
			require.Equal(t, store.TurnForProbe, turn.For)
			p.goBy(t, turn.Wait)
			continue
		}
		tried = append(tried, p.now.Sub(down))
		p.failed(t, len(tried)%2)
		require.Positive(t, p.take(t, 0, 0).Wait, "one request an interval, of all workers")
	}
	require.InDelta(t, 5, tried[0].Seconds(), 1.3, "give or take a quarter")
	require.InDelta(t, 20, len(tried), 8, "an hour at 5 s growing to 5 min: %s", tried)
	require.Less(t, tried[len(tried)-1]-tried[len(tried)-2], 6*time.Minute+16*time.Second, "at most 5 min and a quarter")

	pace, _ := p.succeeded(t, 1)
	require.False(t, pace.Down())
	require.True(t, pace.Free(0), "the first good answer ends it")
}

func TestOneAlertWhenAnEpisodeBeginsAndOneWhenItEnds(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	require.NoError(t, p.in(t, func(tx *store.Tx) error { return tx.SetAlertAfter(t.Context(), p.connection, 3, "pat") }))
	began := p.now
	for episode := range 2 {
		var raised, cleared []*store.Episode
		for i := range 8 {
			if _, e := p.failed(t, i%2); e != nil {
				raised = append(raised, e)
			}
			p.goBy(t, time.Second)
		}
		for i := range 4 {
			if _, e := p.succeeded(t, i%2); e != nil {
				cleared = append(cleared, e)
			}
		}
		require.Len(t, raised, 1, "episode %d", episode)
		require.Equal(t, 3, raised[0].Failures)
		require.Equal(t, began, raised[0].Since.UTC())
		require.Len(t, cleared, 1)
		require.Equal(t, 8, cleared[0].Failures)
		require.Equal(t, began, cleared[0].Since.UTC())
		began = p.now
	}
	for range 2 { // fewer than the threshold
		_, e := p.failed(t, 0)
		require.Nil(t, e)
	}
	_, e := p.succeeded(t, 1)
	require.Nil(t, e, "nobody was told, so nobody is told that it is over")
	require.Equal(t, []string{"alert.raised", "alert.cleared", "alert.raised", "alert.cleared"}, storetest.Query[string](t, p.db,
		"SELECT kind FROM audit.records WHERE kind LIKE 'alert.%' ORDER BY seq"))
}

// TestManyFailuresAtOnceAlertOnce: the database decides who tells people, however many workers see it at once.
func TestManyFailuresAtOnceAlertOnce(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	var alerts atomic.Int64
	all := func(fn func(tx *store.Tx) (*store.Episode, error)) {
		var group errgroup.Group
		for i := range 20 {
			group.Go(func() error {
				return p.workers[i%2].InOrg(t.Context(), p.org, func(tx *store.Tx) error {
					e, err := fn(tx)
					if e != nil {
						alerts.Add(1)
					}
					return err
				})
			})
		}
		require.NoError(t, group.Wait())
	}
	all(func(tx *store.Tx) (*store.Episode, error) {
		_, e, err := tx.Failed(t.Context(), p.connection, probing())
		return e, err
	})
	require.EqualValues(t, 1, alerts.Load())
	require.Equal(t, 20, p.pace(t).FailuresInARow)
	all(func(tx *store.Tx) (*store.Episode, error) {
		_, e, err := tx.Succeeded(t.Context(), p.connection, full())
		return e, err
	})
	require.EqualValues(t, 2, alerts.Load())
}

func TestThePaceOfAnotherOrgIsOutOfReach(t *testing.T) {
	t.Parallel()
	p := newPaced(t)
	p.throttled(t, time.Minute)
	other, err := p.db.AddOrg(t.Context(), "other", "test")
	require.NoError(t, err)
	require.NoError(t, p.db.InOrg(t.Context(), other.ID, func(tx *store.Tx) error {
		pace, err := tx.PaceOf(t.Context(), p.connection)
		require.Zero(t, pace.Throttles)
		return err
	}))
	require.Error(t, p.db.InOrg(t.Context(), other.ID, func(tx *store.Tx) error {
		return tx.SetBudget(t.Context(), p.connection, 1, "test")
	}), "a foreign connection isn't one of this org's")
}

func BenchmarkTakeToken(b *testing.B) {
	db := cluster.New(b)
	org, err := db.AddOrg(b.Context(), "hospital", "test")
	require.NoError(b, err)
	id := cura.ConnectionID("00000000-0000-4000-8000-000000000001")
	c := cura.Connection{
		ID: id, Name: "main", BaseURL: "https://ehr.example/fhir", ClientID: "client", Scopes: []string{},
		Match: cura.MatchStrategy{By: cura.MatchMRN, System: "urn:mrn"}, EHRProfile: "generic", Types: cura.ResourceTypes(),
	}
	require.NoError(b, db.InOrg(b.Context(), org.ID, func(tx *store.Tx) error { return tx.AddConnection(b.Context(), c, "", "test") }))
	for b.Loop() {
		require.NoError(b, db.InOrg(b.Context(), org.ID, func(tx *store.Tx) error {
			_, err := tx.TakeToken(b.Context(), id, 60_000, probing())
			return err
		}))
	}
}
