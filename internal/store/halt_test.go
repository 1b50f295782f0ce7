package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func (o *outbox) settle(t *testing.T) store.ConsentSettlement {
	t.Helper()
	settled, err := o.db.SettleConsent(t.Context(), o.org, o.profile, gate.Permits)
	require.NoError(t, err)
	return settled
}

// grant has the patient's consent given, effective.
func (o *outbox) grant(t *testing.T) (id string) {
	t.Helper()
	o.ensureHead(t)
	id = o.change(t, "", consent.Grant(consent.Terms{}))
	o.settle(t)
	return id
}

func (o *outbox) send(t *testing.T) store.Send {
	t.Helper()
	return store.Send{Org: o.org, Connection: o.connection, Profile: o.profile, Epoch: o.head(t).Epoch, Grace: time.Minute}
}

// hold runs HoldConsent with a write that does nothing, and reports whether it was begun.
func (o *outbox) hold(t *testing.T, send store.Send) (written bool, err error) {
	t.Helper()
	err = o.db.HoldConsent(t.Context(), send, func(context.Context) { written = true }, func(*store.Tx) error { return nil })
	return written, err
}

func TestASendGoesOnlyWhileNothingIsHalted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		before func(*testing.T, *outbox)
		change func(*store.Send)
		goes   bool
	}{
		"nothing is halted": {goes: true},
		"the patient's consent is changing": {
			before: func(t *testing.T, o *outbox) { t.Helper(); o.change(t, "", consent.Revocation(serverTime)) },
		},
		"the epoch has moved": {change: func(s *store.Send) { s.Epoch-- }},
		"the org's pushes are halted": {
			before: func(t *testing.T, o *outbox) { t.Helper(); o.halt(t, store.Halt{What: store.HaltPushes, Actor: "pat"}) },
		},
		"the connection's pushes are halted": {
			before: func(t *testing.T, o *outbox) {
				t.Helper()
				o.halt(t, store.Halt{What: store.HaltPushes, Connection: o.connection, Actor: "pat"})
			},
		},
		"pulls are halted": {
			before: func(t *testing.T, o *outbox) { t.Helper(); o.halt(t, store.Halt{What: store.HaltPulls, Actor: "pat"}) },
			goes:   true,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutbox(t)
			o.grant(t)
			send := o.send(t)
			if tc.before != nil {
				tc.before(t, o)
			}
			if tc.change != nil {
				tc.change(&send)
			}
			written, err := o.hold(t, send)
			require.Equal(t, tc.goes, written)
			if tc.goes {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, store.ErrHalted)
			}
		})
	}
}

func (o *outbox) halt(t *testing.T, h store.Halt) {
	t.Helper()
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		_, err := tx.SetHalt(t.Context(), h)
		return err
	}))
}

func TestARevocationIsEffectiveOnlyWhenTheSendUnderWayIsSettled(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	id := o.grant(t)
	item := o.sent(t, o.add(t, note("n1", 1)), time.Minute)
	began, answer, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	send := o.send(t)
	go func() {
		ended <- o.db.HoldConsent(t.Context(), send, func(context.Context) {
			close(began)
			<-answer
		}, func(tx *store.Tx) error {
			return tx.Settle(t.Context(), item, cura.DeliveryConfirmed, store.Receipt{EHRID: "d1"}, cura.ItemDelivered, "")
		})
	}()
	<-began
	withdrawn := consent.Grant(consent.Terms{})
	withdrawn.Status = "inactive"
	o.change(t, id, withdrawn)
	impatient, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := o.db.SettleConsent(impatient, o.org, o.profile, gate.Permits)
	require.Error(t, err, "the send holds it up")
	require.True(t, o.head(t).Halted)
	close(answer)
	require.NoError(t, <-ended)

	settled := o.settle(t)
	require.EqualValues(t, 2, settled.Epoch)
	item = o.again(t, item)
	require.Equal(t, cura.DeliveryConfirmed, item.Delivery.State)
	require.False(t, settled.EffectiveAt.Before(*item.Delivery.SettledAt))
	require.False(t, o.head(t).Halted)
	require.Zero(t, o.settle(t), "settled again it does nothing")
}

func TestARevocationWaitsForTheDeadlineOfASenderThatHasDied(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.grant(t)
	item := o.sent(t, o.add(t, note("n1", 1)), time.Second)
	o.change(t, "", consent.Revocation(serverTime))
	settled := o.settle(t)
	require.False(t, settled.EffectiveAt.Before(*item.Delivery.SendDeadline))
	require.Zero(t, settled.Cancelled, "what may be on its way isn't cancelled")
	require.Equal(t, cura.DeliverySent, o.again(t, item).Delivery.State)
}

func TestALostSessionEndsTheWrite(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.grant(t)
	send := o.send(t)
	settled := false
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- o.db.HoldConsent(t.Context(), send, func(ctx context.Context) {
			close(began)
			<-ctx.Done()
		}, func(*store.Tx) error {
			settled = true
			return nil
		})
	}()
	<-began
	superuser(t, o.db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'")
	require.ErrorContains(t, <-ended, "the database session was lost")
	require.False(t, settled)
}

func TestARevocationCancelsWhatWasPermittedAndNothingElse(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	id := o.grant(t)
	queued := o.add(t, note("n1", 1))
	through := o.add(t, note("n2", 1))
	require.NoError(t, o.letThrough(t, through))
	sent := o.sent(t, o.add(t, note("n3", 1)), time.Second)
	unknown := o.settled(t, o.add(t, note("n4", 1)), cura.DeliveryUnknown, cura.ItemSending)
	labelled := note("n5", 1)
	labelled.Labels = []string{"PSYTHPN"}
	never := o.add(t, labelled)

	withdrawn := consent.Grant(consent.Terms{})
	withdrawn.Status = "inactive"
	o.change(t, id, withdrawn)
	require.Equal(t, 2, o.settle(t).Cancelled)
	for name, want := range map[string]struct {
		item     store.OutboxItem
		state    cura.ItemState
		delivery cura.DeliveryState
	}{
		"queued":                        {queued, cura.ItemCancelled, ""},
		"let through":                   {through, cura.ItemCancelled, cura.DeliveryCancelled},
		"sent":                          {sent, cura.ItemSending, cura.DeliverySent},
		"perhaps written":               {unknown, cura.ItemSending, cura.DeliveryUnknown},
		"never permitted: gate's cause": {never, cura.ItemQueued, ""},
	} {
		now := o.again(t, want.item)
		require.Equal(t, want.state, now.State, name)
		if want.delivery == "" {
			require.Nil(t, now.Delivery, name)
		} else {
			require.Equal(t, want.delivery, now.Delivery.State, name)
		}
	}
	require.Contains(t, o.again(t, queued).Why, "consent was withdrawn")

	o.change(t, id, consent.Grant(consent.Terms{}))
	require.Zero(t, o.settle(t).Cancelled)
	require.Equal(t, cura.ItemCancelled, o.again(t, queued).State, "consent that is given again revives nothing")
}

func TestARevocationThatIsTakenBackBeforeItIsSettledCancelsAllTheSame(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	id := o.grant(t)
	queued := o.add(t, note("n1", 1))
	withdrawn := consent.Grant(consent.Terms{})
	withdrawn.Status = "inactive"
	o.change(t, id, withdrawn)
	o.change(t, id, consent.Grant(consent.Terms{}))
	settled := o.settle(t)
	require.Equal(t, 1, settled.Cancelled)
	require.EqualValues(t, 2, settled.Epoch, "both are settled at once")
	require.Equal(t, cura.ItemCancelled, o.again(t, queued).State)
}

func TestAnEntryThatCommitsLateCancelsAllTheSame(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	number := func(n int) {
		superuser(t, o.db, `SELECT setval(pg_get_serial_sequence('cura.consent_log', 'entry_id'), $1)`, n)
	}
	number(100)
	o.grant(t)
	o.grant(t)
	item := o.add(t, note("n1", 1))
	// Their transactions took numbers before the grants did, and commit after those were settled.
	number(1)
	id := o.change(t, "", consent.Revocation(serverTime))
	takenBack := consent.Revocation(serverTime)
	takenBack.Status = "inactive"
	o.change(t, id, takenBack)
	require.Equal(t, 1, o.settle(t).Cancelled)
	require.Equal(t, cura.ItemCancelled, o.again(t, item).State)
}

func TestAConsentThatEndsIsSettledInItsTime(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.ensureHead(t)
	until := time.Now().Add(2 * time.Second).Truncate(time.Microsecond)
	o.change(t, "", consent.Grant(consent.Terms{Until: until}))
	queued := o.add(t, note("n1", 1))
	o.settle(t)
	require.WithinDuration(t, until, *o.head(t).NextAt, time.Millisecond)
	require.Eventually(t, func() bool {
		for _, w := range o.due(t) {
			if w.Kind == store.WakeConsent {
				return true
			}
		}
		return false
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, 1, o.settle(t).Cancelled)
	require.Equal(t, cura.ItemCancelled, o.again(t, queued).State)
	require.Nil(t, o.head(t).NextAt)
}

func TestTheHospitalIsToldOfAChange(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	superuser(t, o.db, `UPDATE sync.connections SET deliveries = '{"consent-event": "fhir"}'`)
	events := func() []string {
		return storetest.Query[string](t, o.db, `
			SELECT content #>> '{consent_event,event}' FROM push.outbox WHERE kind = 'consent-event' AND exempt = 'consent-event' ORDER BY position`)
	}
	id := o.grant(t)
	require.Equal(t, []string{"granted"}, events())
	withdrawn := consent.Grant(consent.Terms{})
	withdrawn.Status = "inactive"
	o.change(t, id, withdrawn)
	o.settle(t)
	require.Equal(t, []string{"granted", "revoked"}, events())

	o.applyConsents(t, o.pulled("c1", "1"))
	o.settle(t)
	require.Len(t, events(), 2, "who has told Cura knows")
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.PutOrgPolicy(t.Context(), cura.OrgPolicy{}, "pat") }))
	o.change(t, "", consent.Grant(consent.Terms{}))
	o.settle(t)
	require.Len(t, events(), 2, "the org doesn't want that")
}

func TestConsentThatChangesWhileItIsSettledIsSettledAgain(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	id := o.grant(t)
	o.add(t, note("n1", 1))
	o.change(t, "", consent.Grant(consent.Terms{Kinds: []cura.ArtefactKind{cura.Procedure}}))
	withdrawn := consent.Grant(consent.Terms{})
	withdrawn.Status = "inactive"
	changed := false
	settled, err := o.db.SettleConsent(t.Context(), o.org, o.profile,
		func(a cura.Artefact, policy cura.OrgPolicy, standing []consent.Consent, at time.Time) consent.Decision {
			if !changed {
				changed = true
				o.change(t, id, withdrawn)
			}
			return gate.Permits(a, policy, standing, at)
		})
	require.NoError(t, err)
	require.EqualValues(t, 2, settled.Epoch)
	require.Zero(t, settled.Cancelled, "it hadn't seen the withdrawal")
	require.True(t, o.head(t).Halted, "which still halts")
	require.Equal(t, 1, o.settle(t).Cancelled)
	require.False(t, o.head(t).Halted)
	require.Zero(t, o.settle(t))
}

func TestAPatientWithoutAHeadHasNothingToSettle(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	require.Zero(t, o.settle(t))
}
