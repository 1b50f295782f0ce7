package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// due lists what is due now, in all orgs.
func (o *outbox) due(t *testing.T) []store.Wakeup {
	t.Helper()
	var due []store.Wakeup
	for _, kind := range []string{store.WakeConsent, store.WakeDelivery} {
		some, _, err := o.db.DueWakeups(t.Context(), kind, 100)
		require.NoError(t, err)
		due = append(due, some...)
	}
	return due
}

func (o *outbox) seq(t *testing.T) (seq int64) {
	t.Helper()
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		var err error
		seq, err = tx.DeliverySeq(t.Context(), o.link)
		return err
	}))
	return seq
}

func (o *outbox) rest(t *testing.T, seq int64) (left bool) {
	t.Helper()
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		var err error
		left, err = tx.RestDelivery(t.Context(), o.link, seq)
		return err
	}))
	return left
}

// empty takes all items out of the queue.
func (o *outbox) empty(t *testing.T) {
	t.Helper()
	superuser(t, o.db, "UPDATE push.outbox SET state = 'delivered'")
}

func TestOneOfManyWorkersActsOnAWakeup(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	require.Empty(t, o.due(t))
	require.Zero(t, o.seq(t))
	o.add(t, note("n1", 1))
	due := o.due(t)
	require.Equal(t, []store.Wakeup{{Org: o.org, Kind: store.WakeDelivery, Ref: o.link, Connection: o.connection, Seq: 1}}, due)

	won, err := o.db.Claim(t.Context(), due[0], time.Hour)
	require.NoError(t, err)
	require.True(t, won)
	won, err = o.db.Claim(t.Context(), due[0], time.Hour)
	require.NoError(t, err)
	require.False(t, won, "the other worker has it")
	due, next, err := o.db.DueWakeups(t.Context(), store.WakeDelivery, 100)
	require.NoError(t, err)
	require.Empty(t, due)
	require.Greater(t, time.Until(*next), 50*time.Minute, "when the claim ends it is due again")

	o.add(t, note("n2", 1))
	due = o.due(t)
	require.Len(t, due, 1, "something new doesn't wait for the claim")
	require.EqualValues(t, 2, due[0].Seq)
	stale := due[0]
	stale.Seq = 1
	won, err = o.db.Claim(t.Context(), stale, time.Hour)
	require.NoError(t, err)
	require.False(t, won, "who has read less than there is doesn't take it")
}

func TestAClaimThatHasEndedIsDueAgain(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.add(t, note("n1", 1))
	first := o.due(t)[0]
	won, err := o.db.Claim(t.Context(), first, time.Millisecond)
	require.NoError(t, err)
	require.True(t, won)
	require.Eventually(t, func() bool { return len(o.due(t)) == 1 }, time.Minute, time.Millisecond)
}

func TestAQueueRestsOnlyWhenNothingHasComeMeanwhile(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		// meanwhile happens between the reading of the seq and the rest.
		meanwhile func(*testing.T, *outbox)
		left      bool
		due       int
	}{
		"nothing comes": {meanwhile: func(*testing.T, *outbox) {}},
		"an item comes": {
			meanwhile: func(t *testing.T, o *outbox) { t.Helper(); o.add(t, note("n2", 1)) },
			left:      true, due: 1,
		},
		"an item comes and goes": {
			meanwhile: func(t *testing.T, o *outbox) { t.Helper(); o.add(t, note("n2", 1)); o.empty(t) },
			left:      true, due: 1,
		},
		// Two calls of Deliver can overlap: one whose heartbeat was lost, and the next.
		"another has put the queue to rest, and an item comes": {
			meanwhile: func(t *testing.T, o *outbox) {
				t.Helper()
				require.False(t, o.rest(t, o.seq(t)))
				o.add(t, note("n2", 1))
			},
			left: true, due: 1,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutbox(t)
			o.add(t, note("n1", 1))
			o.empty(t)
			seq := o.seq(t)
			tc.meanwhile(t, o)
			require.Equal(t, tc.left, o.rest(t, seq))
			require.Len(t, o.due(t), tc.due)
		})
	}
}

func TestAQueueInWhichSomethingIsHeldIsLookedAtAgainLater(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.settled(t, o.add(t, note("n1", 1)), cura.DeliveryConfirmed, cura.ItemHeld)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		held, err := tx.HeldItems(t.Context(), o.link)
		require.Equal(t, []store.OutboxItem{item}, held)
		return err
	}))
	require.False(t, o.rest(t, o.seq(t)))
	due, next, err := o.db.DueWakeups(t.Context(), store.WakeDelivery, 100)
	require.NoError(t, err)
	require.Empty(t, due)
	require.NotNil(t, next)

	o.set(t, item, cura.ItemDelivered, "the EHR has filed it", time.Time{})
	require.False(t, o.rest(t, o.seq(t)))
	_, next, err = o.db.DueWakeups(t.Context(), store.WakeDelivery, 100)
	require.NoError(t, err)
	require.Nil(t, next)
}

func TestAnItemThatIsBeingAddedWhileTheQueueIsPutToRestIsntLost(t *testing.T) {
	t.Parallel()
	for _, commits := range []bool{true, false} {
		t.Run(map[bool]string{true: "it is added", false: "it is taken back"}[commits], func(t *testing.T) {
			t.Parallel()
			o := newOutbox(t)
			o.add(t, note("n1", 1))
			o.empty(t)
			seq := o.seq(t)
			rested := make(chan bool, 1)
			err := o.in(t, func(tx *store.Tx) error {
				if _, err := tx.AddItem(t.Context(), o.connection, o.link, note("n2", 1), store.NotExempt, "ada"); err != nil {
					return err
				}
				go func() {
					left := false
					_ = o.db.InOrg(t.Context(), o.org, func(other *store.Tx) (err error) {
						left, err = other.RestDelivery(t.Context(), o.link, seq)
						return err
					})
					rested <- left
				}()
				o.awaitBlocked(t)
				if !commits {
					return context.Canceled
				}
				return nil
			})
			if commits {
				require.NoError(t, err)
			}
			require.Equal(t, commits, <-rested)
			if commits {
				require.Len(t, o.due(t), 1)
				require.Equal(t, "n2", o.next(t))
			} else {
				require.Empty(t, o.due(t))
			}
		})
	}
}

// awaitBlocked waits until a session waits for a lock that another holds.
func (o *outbox) awaitBlocked(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		return storetest.Query[int64](t, o.db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")[0] > 0
	}, time.Minute, time.Millisecond)
}

func TestWhatIsNotifiedIsHeard(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	ctx, cancel := context.WithCancel(t.Context())
	woken, halted, ended := make(chan struct{}, 16), make(chan cura.ProfileID, 16), make(chan error, 1)
	go func() {
		ended <- o.db.Listen(ctx, func() { woken <- struct{}{} }, func(p cura.ProfileID) { halted <- p })
	}()
	<-woken // what came before isn't heard, so it is looked at
	o.add(t, note("n1", 1))
	<-woken
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.HaltConsent(t.Context(), o.profile, store.HaltOperator, "sam") }))
	require.Equal(t, o.profile, <-halted)
	cancel()
	require.NoError(t, <-ended)
}

func TestAListenerWhoseSessionIsLostSaysSo(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	woken, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { ended <- o.db.Listen(t.Context(), func() { woken <- struct{}{} }, func(cura.ProfileID) {}) }()
	<-woken
	superuser(t, o.db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'")
	require.ErrorContains(t, <-ended, "the session was lost")
}

func TestAKillSwitchStopsWhatItNames(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	other := addConnection(t, o.db, o.org, "other")
	halted := func(connection cura.ConnectionID, what string) (by string) {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			h, err := tx.Halted(t.Context(), connection, what)
			if h != nil {
				by = h.Actor + ": " + h.Reason
			}
			return err
		}))
		return by
	}
	set := func(h store.Halt) (fresh bool) {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			var err error
			fresh, err = tx.SetHalt(t.Context(), h)
			return err
		}))
		return fresh
	}
	lift := func(connection cura.ConnectionID, what string) (lifted bool) {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			var err error
			lifted, err = tx.LiftHalt(t.Context(), connection, what, "sam")
			return err
		}))
		return lifted
	}
	require.Empty(t, halted(o.connection, store.HaltPushes))
	require.False(t, lift(o.connection, store.HaltPushes), "there is none")
	require.True(t, set(store.Halt{Connection: o.connection, What: store.HaltPushes, Actor: "pat", Reason: "a wrong patient"}))
	require.False(t, set(store.Halt{Connection: o.connection, What: store.HaltPushes, Actor: "sam"}), "one stands already")
	require.Equal(t, "pat: a wrong patient", halted(o.connection, store.HaltPushes))
	require.Empty(t, halted(o.connection, store.HaltPulls))
	require.Empty(t, halted(other, store.HaltPushes))

	require.True(t, set(store.Halt{What: store.HaltPushes, Actor: "sam", Reason: "all"}))
	require.Equal(t, "sam: all", halted(other, store.HaltPushes))
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		standing, err := tx.Halts(t.Context())
		require.Len(t, standing, 2)
		require.Equal(t, []cura.ConnectionID{o.connection, ""}, []cura.ConnectionID{standing[0].Connection, standing[1].Connection})
		return err
	}))

	o.add(t, note("n1", 1))
	won, err := o.db.Claim(t.Context(), o.due(t)[0], time.Hour)
	require.NoError(t, err)
	require.True(t, won)
	require.True(t, lift(o.connection, store.HaltPushes))
	require.Equal(t, "sam: all", halted(o.connection, store.HaltPushes), "the org's stands")
	require.True(t, lift("", store.HaltPushes))
	require.Empty(t, halted(o.connection, store.HaltPushes))
	require.Len(t, o.due(t), 1, "the queues that it held are looked at")
	require.Equal(t, []string{"halt.set", "halt.set", "halt.lifted", "halt.lifted"},
		storetest.Query[string](t, o.db, "SELECT kind FROM audit.records WHERE kind LIKE 'halt.%' ORDER BY seq"))
}

func TestTheClockIsTheDatabases(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		first, err := tx.Clock(t.Context())
		require.NoError(t, err)
		second, err := tx.Clock(t.Context())
		require.True(t, second.After(first), "not the transaction's, which stands still")
		return err
	}))
}
