package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// letThrough puts an item through the gate.
func (o *outbox) letThrough(t *testing.T, item store.OutboxItem) error {
	t.Helper()
	return o.in(t, func(tx *store.Tx) error {
		return tx.PutIntent(t.Context(), store.Intent{
			Item: item, Resource: "DocumentReference", ContentHash: sha256.Sum256([]byte(item.Artefact.ID)), ConsentEntry: 7, ConsentEpoch: 3,
		})
	})
}

// sent has an item sent, with a deadline after grace.
func (o *outbox) sent(t *testing.T, item store.OutboxItem, grace time.Duration) store.OutboxItem {
	t.Helper()
	require.NoError(t, o.letThrough(t, item))
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.MarkSent(t.Context(), item, grace) }))
	return o.again(t, item)
}

// settled has an item sent and settled.
func (o *outbox) settled(t *testing.T, item store.OutboxItem, to cura.DeliveryState, state cura.ItemState) store.OutboxItem {
	t.Helper()
	item = o.sent(t, item, time.Minute)
	r := store.Receipt{}
	if to == cura.DeliveryConfirmed || to == cura.DeliveryPresent {
		r = store.Receipt{EHRID: "ehr-" + item.Artefact.ID, Version: "1", ETag: `W/"1"`, Status: 201}
	}
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.Settle(t.Context(), item, to, r, state, "because") }))
	return o.again(t, item)
}

func TestADeliveryKeepsTheDecisionAndTheReceipt(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.add(t, note("n1", 1))
	require.NoError(t, o.letThrough(t, item))
	item = o.again(t, item)
	require.Equal(t, cura.ItemSending, item.State)
	d := *item.Delivery
	require.Equal(t, cura.DeliveryIntent, d.State)
	require.Equal(t, "DocumentReference", d.Resource)
	require.EqualValues(t, 7, *d.ConsentEntry)
	require.EqualValues(t, 3, d.ConsentEpoch)
	require.Equal(t, cura.RoleClinician, d.AuthorRole)
	require.False(t, d.DecidedAt.IsZero())
	hash := sha256.Sum256([]byte("n1"))
	require.Equal(t, hash[:], d.ContentHash)
	require.Nil(t, d.SendDeadline)
	require.Zero(t, d.Sends)

	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.MarkSent(t.Context(), item, time.Minute) }))
	d = *o.again(t, item).Delivery
	require.Equal(t, cura.DeliverySent, d.State)
	require.NotNil(t, d.SendDeadline)
	require.Equal(t, 1, d.Sends)
	require.NotNil(t, d.FirstSentAt)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		n, until, err := tx.InFlight(t.Context(), o.connection)
		require.Equal(t, 1, n)
		require.True(t, d.SendDeadline.Equal(*until))
		return err
	}))

	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		return tx.Settle(t.Context(), item, cura.DeliveryConfirmed, store.Receipt{EHRID: "d1", Version: "4", ETag: `W/"4"`, Status: 201}, cura.ItemHeld, "")
	}))
	item = o.again(t, item)
	require.Equal(t, cura.ItemHeld, item.State)
	d = *item.Delivery
	require.Equal(t, cura.DeliveryConfirmed, d.State)
	require.Equal(t, []string{"d1", "4", `W/"4"`}, []string{d.EHRID, d.Version, d.ETag})
	require.Equal(t, 201, d.Status)
	require.NotNil(t, d.SettledAt)
	require.Nil(t, d.SendDeadline)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		n, until, err := tx.InFlight(t.Context(), "")
		require.Zero(t, n)
		require.Nil(t, until)
		return err
	}))
	require.Equal(t, []string{"push.queued success", "push.decided success", "push.sent success", "push.settled success"},
		storetest.Query[string](t, o.db, "SELECT kind || ' ' || outcome FROM audit.records WHERE kind LIKE 'push.%' ORDER BY seq"))
}

func TestTheLedgerAllowsTheseStepsAndNoOther(t *testing.T) {
	t.Parallel()
	const nothing cura.DeliveryState = ""
	states := []cura.DeliveryState{
		cura.DeliveryIntent, cura.DeliverySent, cura.DeliveryConfirmed, cura.DeliveryRejected, cura.DeliveryPresent, cura.DeliveryUnknown,
	}
	allowed := map[cura.DeliveryState][]cura.DeliveryState{
		nothing:             {cura.DeliveryIntent},
		cura.DeliveryIntent: {cura.DeliverySent, cura.DeliveryRejected, cura.DeliveryCancelled},
		cura.DeliverySent: {
			cura.DeliveryIntent, cura.DeliveryConfirmed, cura.DeliveryRejected, cura.DeliveryPresent, cura.DeliveryUnknown, cura.DeliveryCancelled,
		},
		cura.DeliveryUnknown:   {cura.DeliveryIntent, cura.DeliveryConfirmed, cura.DeliveryRejected, cura.DeliveryPresent},
		cura.DeliveryRejected:  {cura.DeliveryIntent},
		cura.DeliveryCancelled: {cura.DeliveryIntent},
		// What the EHR has stays so: a change is a new version.
		cura.DeliveryConfirmed: {},
		cura.DeliveryPresent:   {},
	}
	// The way by which each state is come to.
	ways := map[cura.DeliveryState][]cura.DeliveryState{
		nothing: nil, cura.DeliveryIntent: {cura.DeliveryIntent}, cura.DeliverySent: {cura.DeliveryIntent, cura.DeliverySent},
		cura.DeliveryConfirmed: {cura.DeliveryIntent, cura.DeliverySent, cura.DeliveryConfirmed},
		cura.DeliveryRejected:  {cura.DeliveryIntent, cura.DeliverySent, cura.DeliveryRejected},
		cura.DeliveryPresent:   {cura.DeliveryIntent, cura.DeliverySent, cura.DeliveryPresent},
		cura.DeliveryUnknown:   {cura.DeliveryIntent, cura.DeliverySent, cura.DeliveryUnknown},
		cura.DeliveryCancelled: {cura.DeliveryIntent, cura.DeliveryCancelled},
	}
	o := newOutbox(t)
	conn := session(t, o.db)
	for from, way := range ways {
		for _, to := range states {
			item := o.add(t, note(uuid.NewString(), 1))
			as(t, conn, "cura_app", string(o.org), func(tx pgx.Tx) {
				last := nothing
				for _, step := range way {
					require.NoError(t, move(t, tx, o, item, last, step))
					last = step
				}
				err := move(t, tx, o, item, from, to)
				if slices.Contains(allowed[from], to) || from == to {
					require.NoError(t, err, "from %q to %q", from, to)
					return
				}
				require.ErrorContains(t, err, fmt.Sprintf("can't go from %s to %s", map[bool]string{true: "nothing", false: string(from)}[from == nothing], to))
				requireState(t, err, "23514")
			})
		}
	}
}

// move makes a step of an item's delivery with plain SQL, all of whose other columns fit the state that it leads to.
func move(t *testing.T, tx pgx.Tx, o *outbox, item store.OutboxItem, from, to cura.DeliveryState) error {
	t.Helper()
	settled := slices.Contains([]cura.DeliveryState{cura.DeliveryConfirmed, cura.DeliveryRejected, cura.DeliveryPresent, cura.DeliveryCancelled}, to)
	if from != "" {
		_, err := tx.Exec(t.Context(), `
			UPDATE push.ledger SET state = $2, sends = 1, send_deadline = now(), settled_at = CASE WHEN $3 THEN now() END WHERE item_id = $1`, item.ID, to, settled)
		return err
	}
	_, err := tx.Exec(t.Context(), `
		INSERT INTO push.ledger (org_id, connection_id, artefact_id, artefact_version, item_id, profile_id, resource, state, content_hash, consent_epoch,
			author_role, decided_at, sends, send_deadline, settled_at)
		VALUES ($1, $2, $3, 1, $4, $5, 'DocumentReference', $6, '', 0, 'clinician', now(), 1, now(), CASE WHEN $7 THEN now() END)`,
		o.org, o.connection, item.Artefact.ID, item.ID, o.profile, to, settled)
	return err
}

func TestTheLedgersRowsAreWhole(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.sent(t, o.add(t, note("n1", 1)), time.Minute)
	conn := session(t, o.db)
	for name, sql := range map[string]string{
		"sent without a deadline":     "UPDATE push.ledger SET send_deadline = NULL",
		"sent, but never":             "UPDATE push.ledger SET sends = 0",
		"settled, but not since when": "UPDATE push.ledger SET state = 'confirmed'",
		"on its way, but settled":     "UPDATE push.ledger SET settled_at = now()",
	} {
		as(t, conn, "cura_app", string(o.org), func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), sql)
			require.Error(t, err, name)
			requireState(t, err, "23514")
		})
	}
	for _, table := range []string{"push.ledger", "push.outbox"} {
		as(t, conn, "cura_app", string(o.org), func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), "DELETE FROM "+table)
			requireState(t, err, insufficientPrivilege)
		})
	}
}

func TestADeliveryBeginsAnewOnlyWhereNothingIsOnItsWay(t *testing.T) {
	t.Parallel()
	begin := map[cura.DeliveryState]func(*testing.T, *outbox) store.OutboxItem{
		cura.DeliveryIntent: func(t *testing.T, o *outbox) store.OutboxItem {
			t.Helper()
			item := o.add(t, note("n1", 1))
			require.NoError(t, o.letThrough(t, item))
			return item
		},
		cura.DeliverySent: func(t *testing.T, o *outbox) store.OutboxItem {
			t.Helper()
			return o.sent(t, o.add(t, note("n1", 1)), time.Minute)
		},
	}
	for _, to := range []cura.DeliveryState{cura.DeliveryConfirmed, cura.DeliveryRejected, cura.DeliveryPresent, cura.DeliveryUnknown} {
		begin[to] = func(t *testing.T, o *outbox) store.OutboxItem {
			t.Helper()
			return o.settled(t, o.add(t, note("n1", 1)), to, cura.ItemSending)
		}
	}
	anew := []cura.DeliveryState{cura.DeliveryIntent, cura.DeliveryRejected}
	for state, begun := range begin {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			o := newOutbox(t)
			item := begun(t, o)
			err := o.letThrough(t, item)
			if slices.Contains(anew, state) {
				require.NoError(t, err)
				require.Equal(t, cura.DeliveryIntent, o.again(t, item).Delivery.State)
				return
			}
			requireKind(t, err, fault.Conflict)
			require.Equal(t, state, o.again(t, item).Delivery.State)
		})
	}
}

func TestWhatWasTakenOutOfTheQueueIsntLetThrough(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.add(t, note("n1", 1))
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.Cancel(t.Context(), item, "not this one", "pat") }))
	requireKind(t, o.letThrough(t, item), fault.Conflict)
	require.Nil(t, o.again(t, item).Delivery)
}

func TestOneOfTwoSendersSends(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.add(t, note("n1", 1))
	require.NoError(t, o.letThrough(t, item))
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.MarkSent(t.Context(), item, time.Minute) }))
	requireKind(t, o.in(t, func(tx *store.Tx) error { return tx.MarkSent(t.Context(), item, time.Minute) }), fault.Conflict)
	require.Equal(t, 1, o.again(t, item).Delivery.Sends)
}

func TestWhatWasProvablyNotWrittenIsWithdrawn(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.sent(t, o.add(t, note("n1", 1)), time.Minute)
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.Withdraw(t.Context(), item) }))
	d := o.again(t, item).Delivery
	require.Equal(t, cura.DeliveryIntent, d.State)
	require.Nil(t, d.SendDeadline)
	require.Equal(t, 1, d.Sends, "that it was tried is kept")
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.MarkSent(t.Context(), item, time.Minute) }))
}

func TestADeliveryIsSettledOnce(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.settled(t, o.add(t, note("n1", 1)), cura.DeliveryConfirmed, cura.ItemDelivered)
	for _, to := range []cura.DeliveryState{cura.DeliveryRejected, cura.DeliveryUnknown, cura.DeliveryConfirmed} {
		requireKind(t, o.in(t, func(tx *store.Tx) error {
			return tx.Settle(t.Context(), item, to, store.Receipt{}, cura.ItemReview, "late")
		}), fault.Conflict)
	}
	require.Equal(t, item, o.again(t, item))
}

func TestAReviewIsShownAtItsConnection(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	attention := func() bool { return storetest.Query[bool](t, o.db, "SELECT attention FROM directory.connections")[0] }
	require.False(t, attention())
	o.settled(t, o.add(t, note("n1", 1)), cura.DeliveryUnknown, cura.ItemReview)
	require.True(t, attention())
}

func TestAPersonResolvesWhatIsUnknown(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		written  bool
		delivery cura.DeliveryState
		state    cura.ItemState
	}{
		"the EHR has it":          {true, cura.DeliveryConfirmed, cura.ItemDelivered},
		"the EHR doesn't have it": {false, cura.DeliveryIntent, cura.ItemQueued},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutbox(t)
			item := o.settled(t, o.add(t, note("n1", 1)), cura.DeliveryUnknown, cura.ItemReview)
			resolve := func() error {
				return o.in(t, func(tx *store.Tx) error { return tx.Resolve(t.Context(), item, tc.written, "d9", "pat") })
			}
			require.NoError(t, resolve())
			item = o.again(t, item)
			require.Equal(t, tc.delivery, item.Delivery.State)
			require.Equal(t, tc.state, item.State)
			require.Equal(t, map[bool]string{true: "d9"}[tc.written], item.Delivery.EHRID)
			requireKind(t, resolve(), fault.Conflict)
			if !tc.written {
				require.Equal(t, "n1", o.next(t), "it has its turn again")
			}
		})
	}
}

func TestAPersonCancelsWhatIsntOnItsWay(t *testing.T) {
	t.Parallel()
	cancel := func(t *testing.T, o *outbox, item store.OutboxItem) error {
		t.Helper()
		return o.in(t, func(tx *store.Tx) error { return tx.Cancel(t.Context(), item, "not this one", "pat") })
	}
	t.Run("queued", func(t *testing.T) {
		t.Parallel()
		o := newOutbox(t)
		item := o.add(t, note("n1", 1))
		require.NoError(t, cancel(t, o, item))
		require.Equal(t, cura.ItemCancelled, o.again(t, item).State)
	})
	t.Run("let through", func(t *testing.T) {
		t.Parallel()
		o := newOutbox(t)
		item := o.add(t, note("n1", 1))
		require.NoError(t, o.letThrough(t, item))
		stale := o.again(t, item)
		require.NoError(t, cancel(t, o, stale))
		item = o.again(t, item)
		require.Equal(t, cura.ItemCancelled, item.State)
		require.Equal(t, cura.DeliveryRejected, item.Delivery.State)
		requireKind(t, o.in(t, func(tx *store.Tx) error { return tx.MarkSent(t.Context(), stale, time.Minute) }), fault.Conflict)
	})
	t.Run("let through, and sent before the person's word came", func(t *testing.T) {
		t.Parallel()
		o := newOutbox(t)
		item := o.add(t, note("n1", 1))
		require.NoError(t, o.letThrough(t, item))
		item = o.again(t, item)
		require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.MarkSent(t.Context(), item, time.Minute) }))
		requireKind(t, cancel(t, o, item), fault.Conflict)
		require.Equal(t, cura.ItemSending, o.again(t, item).State)
	})
	for _, state := range []cura.DeliveryState{cura.DeliveryConfirmed, cura.DeliveryPresent, cura.DeliveryUnknown} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			o := newOutbox(t)
			item := o.settled(t, o.add(t, note("n1", 1)), state, cura.ItemReview)
			err := cancel(t, o, item)
			requireKind(t, err, fault.Conflict)
			f, known := errors.AsType[*fault.Error](err)
			require.True(t, known)
			require.Contains(t, f.Fix, "starter push retract")
		})
	}
}

func TestAPersonHandsOverOnlyWhatWaitsForThat(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.add(t, note("n1", 1))
	handOver := func() error {
		return o.in(t, func(tx *store.Tx) error { return tx.HandOver(t.Context(), o.again(t, item), "pat") })
	}
	requireKind(t, handOver(), fault.Conflict)
	o.set(t, item, cura.ItemManual, "a person hands it over", time.Time{})
	require.NoError(t, handOver())
	require.Equal(t, cura.ItemDelivered, o.again(t, item).State)
	requireKind(t, handOver(), fault.Conflict)
}

func TestADenialIsAudited(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.add(t, note("n1", 1))
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.Deny(t.Context(), item, "no-consent", "there is no consent") }))
	item = o.again(t, item)
	require.Equal(t, cura.ItemDenied, item.State)
	require.Equal(t, "there is no consent", item.Why)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		tx.ViewItem(item, "pat")
		return nil
	}))
	require.Equal(t, []string{"push.decided denied no-consent", "push.viewed success "}, storetest.Query[string](t, o.db, `
		SELECT kind || ' ' || outcome || ' ' || coalesce(details->>'code', '') FROM audit.records WHERE kind IN ('push.decided', 'push.viewed') ORDER BY seq`))
}

func TestLookUpsAreCounted(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.settled(t, o.add(t, note("n1", 1)), cura.DeliveryUnknown, cura.ItemSending)
	for want := 1; want <= 3; want++ {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			n, err := tx.CountLookup(t.Context(), item)
			require.Equal(t, want, n)
			return err
		}))
	}
}

func TestWhatCuraHasWrittenIsKnown(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.settled(t, o.add(t, note("n1", 1)), cura.DeliveryConfirmed, cura.ItemDelivered)
	o.settled(t, o.add(t, note("n2", 1)), cura.DeliveryUnknown, cura.ItemReview)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		ours, err := tx.OursWritten(t.Context(), o.connection, "DocumentReference", []string{"ehr-n1", "ehr-n2", "", "other"})
		require.Equal(t, map[string]bool{"ehr-n1": true}, ours)
		return err
	}))
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		ours, err := tx.OursWritten(t.Context(), o.connection, "Condition", []string{"ehr-n1"})
		require.Empty(t, ours)
		return err
	}))
	for artefact, want := range map[string]store.Receipt{"n1": {EHRID: "ehr-n1", Version: "1", ETag: `W/"1"`}, "n2": {}, "n3": {}} {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			got, err := tx.WrittenAs(t.Context(), o.connection, artefact, 1)
			require.Equal(t, want, got)
			return err
		}))
	}
}
