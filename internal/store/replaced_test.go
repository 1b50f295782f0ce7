package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/store"
)

// A sender that stood still for longer than its deadline finds its item in another's hands: what it says of its own send
// mustn't count for the other's, whose deadline a revoker waits for.
func TestASenderThatWasReplacedSettlesNothing(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	o.ensureHead(t)
	item := o.add(t, note("n1", 1))
	first := o.sent(t, item, time.Microsecond)
	first.Send = first.Delivery.Sends
	// It is looked up, not found, and sent again.
	for _, state := range []cura.DeliveryState{cura.DeliveryUnknown, cura.DeliveryIntent} {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			return tx.Settle(t.Context(), item, state, store.Receipt{}, cura.ItemSending, "because")
		}))
	}
	second := o.sent(t, item, time.Minute)
	second.Send = second.Delivery.Sends

	requireKind(t, o.in(t, func(tx *store.Tx) error { return tx.Withdraw(t.Context(), first) }), fault.Conflict)
	requireKind(t, o.db.TakeBack(t.Context(), o.org, first), fault.Conflict)
	requireKind(t, o.in(t, func(tx *store.Tx) error {
		return tx.Settle(t.Context(), first, cura.DeliveryRejected, store.Receipt{}, cura.ItemReview, "late")
	}), fault.Conflict)
	now := o.again(t, item)
	require.Equal(t, cura.DeliverySent, now.Delivery.State)
	require.NotNil(t, now.Delivery.SendDeadline)
	require.Equal(t, cura.ItemSending, now.State)

	require.NoError(t, o.db.TakeBack(t.Context(), o.org, second))
	require.Equal(t, cura.DeliveryIntent, o.again(t, item).Delivery.State)
}

// A sender that was let through before the halt may promise its send while the revoker is deciding about the queue: the
// revoker waits for that promise too, and doesn't give up.
func TestASendThatIsMarkedWhileConsentIsSettledIsWaitedFor(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	granted := o.grant(t)
	item := o.add(t, note("n1", 1))
	require.NoError(t, o.letThrough(t, item))
	withdrawn := consent.Grant(consent.Terms{})
	withdrawn.Status = "inactive"
	o.change(t, granted, withdrawn)

	marked := false
	settled, err := o.db.SettleConsent(t.Context(), o.org, o.profile, func(a cura.Artefact, p cura.OrgPolicy, standing []consent.Consent, at time.Time) consent.Decision {
		if !marked {
			marked = true
			require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.MarkSent(t.Context(), item, 200*time.Millisecond) }))
		}
		return gate.Permits(a, p, standing, at)
	})
	require.NoError(t, err)
	require.True(t, marked)
	require.Positive(t, settled.Epoch)
	now := o.again(t, item)
	require.Equal(t, cura.DeliverySent, now.Delivery.State, "nobody knows what came of it")
	require.False(t, settled.EffectiveAt.Before(*now.Delivery.SendDeadline))
}
