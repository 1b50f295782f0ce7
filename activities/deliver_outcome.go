package activities

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// written is what came of one write, and where it leaves the item.
type written struct {
	// tried: the write was begun.
	tried   bool
	receipt ehr.Receipt
	err     error

	gone bool
	wait time.Duration
	why  string
}

// settle records the outcome, and guesses none: what the EHR may have processed without saying so is UNKNOWN.
func (w *written) settle(ctx context.Context, tx *store.Tx, c *cleared, attempts int) error {
	switch {
	case w.err == nil:
		w.gone = true
		to, state := cura.DeliveryConfirmed, cura.ItemDelivered
		if w.receipt.Existed {
			to = cura.DeliveryPresent
		}
		if c.write.Held {
			state = cura.ItemHeld
		}
		return tx.Settle(ctx, c.item, to, store.Receipt{
			EHRID: w.receipt.ID, Version: w.receipt.Version, ETag: w.receipt.ETag, Status: w.receipt.Status,
		}, state, "")
	case ehr.MaybeProcessed(w.err):
		return tx.Settle(ctx, c.item, cura.DeliveryUnknown, store.Receipt{}, cura.ItemSending, "the EHR may have it; it is asked: "+fault.Public(w.err))
	}
	switch fault.KindOf(w.err) { //nolint:exhaustive // what the others have in common is that a retry may help
	case fault.Data:
		w.gone = true
		return tx.Settle(ctx, c.item, cura.DeliveryRejected, store.Receipt{}, cura.ItemRejected, fault.Public(w.err))
	case fault.Conflict, fault.Scope, fault.Unsupported, fault.Config, fault.NotFound, fault.Protocol:
		// A retry meets the same answer; a person mends the connection, or decides which of two changes counts.
		w.gone = true
		return tx.Settle(ctx, c.item, cura.DeliveryRejected, store.Receipt{}, cura.ItemReview, fault.Public(w.err))
	default:
		if err := tx.Withdraw(ctx, c.item); err != nil {
			return err
		}
		return w.putOff(ctx, tx, c.item, attempts)
	}
}

// putOff leaves the item for later: as long as the EHR asks, or with a growing wait. After too many attempts a person
// decides; the queue goes on without it.
func (w *written) putOff(ctx context.Context, tx *store.Tx, item store.OutboxItem, attempts int) error {
	wait := Backoff(item.Attempts+1, time.Second, maxWait)
	f := fault.Wrap("sending", fault.KindOf(w.err), fault.Public(w.err), w.err)
	throttled := f.Kind == fault.Throttled
	if asked := retryAfter(w.err); asked > 0 {
		wait = min(asked, maxWait)
	}
	if !throttled && item.Attempts+1 >= attempts {
		w.gone = true
		return tx.Settle(ctx, item, cura.DeliveryRejected, store.Receipt{}, cura.ItemReview,
			fmt.Sprintf("given up after %d attempts; nothing was written: %s", item.Attempts+1, fault.Public(w.err)))
	}
	w.wait, w.why = wait, fault.Public(w.err)
	if throttled {
		return tx.SetItem(ctx, item.ID, cura.ItemSending, w.why, time.Now().Add(wait))
	}
	_, err := tx.PutOff(ctx, item.ID, w.why, wait)
	return err
}

// lookUp asks the EHR whether it has what may have been written: by Cura's identifier where the server keeps it, else by
// reading back what it has of the patient. A look-up discloses nothing. What can't be told is left to a person.
func (d *delivery) lookUp(ctx context.Context, item store.OutboxItem) (gone bool, wait time.Duration, why string, err error) {
	write, _ := d.vendor.Write(item.Artefact.Kind)
	found, err := d.find(ctx, item, write.ReadBack)
	if err != nil {
		return d.askLater(ctx, item, err)
	}
	settle := func(to cura.DeliveryState, r store.Receipt, state cura.ItemState, why string) error {
		gone = state != cura.ItemSending
		return d.inOrg(ctx, func(tx *store.Tx) error { return tx.Settle(ctx, item, to, r, state, why) })
	}
	switch {
	case len(found) == 1:
		state := cura.ItemDelivered
		if write.Held {
			state = cura.ItemHeld
		}
		return true, 0, "", settle(cura.DeliveryConfirmed, store.Receipt{EHRID: found[0].ID, Version: found[0].Version, ETag: found[0].ETag}, state, "")
	case len(found) > 1:
		err = settle(cura.DeliveryUnknown, store.Receipt{}, cura.ItemReview, fmt.Sprintf("the EHR has %d resources that may be it", len(found)))
	case write.ConditionalCreate, updates(item):
		// A repeated conditional create writes nothing where the first comes through after all; a repeated update writes the same.
		return d.sendAgain(ctx, item)
	case write.ReadBack == profile.ReadBackNone:
		err = settle(cura.DeliveryUnknown, store.Receipt{}, cura.ItemReview,
			"the EHR may have it, and can't be asked: have the hospital look, then: starter push resolve --written or --release")
	default:
		err = settle(cura.DeliveryUnknown, store.Receipt{}, cura.ItemReview,
			"the EHR doesn't show it and may still be writing it: look there, then: starter push resolve --written or --release")
	}
	return gone, 0, "", err
}

// sendAgain has an item sent once more: at once the first time, then with a growing wait. After too many attempts a person
// decides: it may still come through.
func (d *delivery) sendAgain(ctx context.Context, item store.OutboxItem) (gone bool, wait time.Duration, why string, err error) {
	why = "the EHR doesn't have it; it is sent again"
	err = d.inOrg(ctx, func(tx *store.Tx) error {
		if item.Attempts+1 >= d.a.cfg.RetryAttempts {
			gone = true
			return tx.Settle(ctx, item, cura.DeliveryUnknown, store.Receipt{}, cura.ItemReview, fmt.Sprintf(
				"the EHR doesn't show it after %d attempts and may still be writing it: look there, then: starter push resolve --written or --release", item.Attempts+1))
		}
		if item.Attempts > 0 {
			wait = Backoff(item.Attempts, lookupWait, maxWait)
		}
		if err := tx.Settle(ctx, item, cura.DeliveryIntent, store.Receipt{}, cura.ItemSending, why); err != nil {
			return err
		}
		_, err := tx.PutOff(ctx, item.ID, why, wait)
		return err
	})
	return gone, wait, why, err
}

// updates reports whether an item changes a resource that was written before.
func updates(item store.OutboxItem) bool {
	return item.Artefact.Retracts || item.Artefact.Replaces > 0 && item.Delivery.Resource != "DocumentReference"
}

// find looks for what may have been written.
func (d *delivery) find(ctx context.Context, item store.OutboxItem, by string) ([]ehr.Written, error) {
	resource := item.Delivery.Resource
	if updates(item) {
		return d.findUpdate(ctx, item)
	}
	if by == profile.ReadBackIdentifier {
		return d.client.FindByIdentifier(ctx, resource, mappings.IdentifierSystem, mappings.IdentifierOf(item.Artefact))
	}
	if by != profile.ReadBackSearch {
		return nil, nil
	}
	body, err := mappings.Outbound(item.Artefact, mappings.Outgoing{Resource: resource, PatientEHRID: item.PatientEHRID, WrittenEHRID: item.Delivery.EHRID})
	if err != nil {
		return nil, err
	}
	ours, err := mappings.ContentHash(body)
	if err != nil {
		return nil, err
	}
	since := time.Now()
	if item.Delivery.FirstSentAt != nil {
		since = *item.Delivery.FirstSentAt
	}
	all, err := d.client.ReadBack(ctx, resource, item.PatientEHRID, item.Artefact.EncounterEHRID, since.Add(-d.a.cfg.Overlap))
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(all))
	for i := range all {
		ids[i] = all[i].ID
	}
	var others map[string]bool // what another artefact or version was written as
	err = d.inOrg(ctx, func(tx *store.Tx) error {
		others, err = tx.OursWritten(ctx, d.in.Connection, resource, ids)
		return err
	})
	var same []ehr.Written
	for _, w := range all {
		if theirs, err := mappings.ContentHash(w.Resource); err == nil && bytes.Equal(theirs[:], ours[:]) && !others[w.ID] {
			same = append(same, w)
		}
	}
	return same, err
}

// findUpdate looks whether an update has come through: the resource is there anyway, so its identifier tells.
func (d *delivery) findUpdate(ctx context.Context, item store.OutboxItem) ([]ehr.Written, error) {
	var before store.Receipt
	err := d.inOrg(ctx, func(tx *store.Tx) error {
		var err error
		before, err = tx.WrittenAs(ctx, d.in.Connection, item.Artefact.ID, item.Artefact.Replaces)
		return err
	})
	if err != nil {
		return nil, err
	}
	now, err := d.client.ReadWritten(ctx, item.Delivery.Resource, before.EHRID)
	if err != nil {
		return nil, err
	}
	body, err := mappings.Outbound(item.Artefact, mappings.Outgoing{Resource: item.Delivery.Resource, PatientEHRID: item.PatientEHRID, WrittenEHRID: before.EHRID})
	if err != nil {
		return nil, err
	}
	ours, err := mappings.ContentHash(body)
	if err != nil {
		return nil, err
	}
	theirs, err := mappings.ContentHash(now.Resource)
	if err != nil || !bytes.Equal(ours[:], theirs[:]) {
		return nil, err
	}
	return []ehr.Written{now}, nil
}

// filed looks whether what the EHR has held for sign-off is filed by now: then it can be read back.
func (d *delivery) filed(ctx context.Context) error {
	var held []store.OutboxItem
	err := d.inOrg(ctx, func(tx *store.Tx) error {
		var err error
		held, err = tx.HeldItems(ctx, d.in.Link)
		return err
	})
	if err != nil {
		return err
	}
	for _, item := range held {
		write, _ := d.vendor.Write(item.Artefact.Kind)
		if write.ReadBack == profile.ReadBackNone || item.Delivery.EHRID == "" {
			continue // the EHR doesn't show it: starter push resolve
		}
		_, err := d.client.ReadWritten(ctx, item.Delivery.Resource, item.Delivery.EHRID)
		if err != nil {
			continue // still held, or not to be asked now: looked at again by the next call
		}
		err = d.inOrg(ctx, func(tx *store.Tx) error {
			return tx.SetItem(ctx, item.ID, cura.ItemDelivered, "the EHR has filed it", time.Time{})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// maxLookups is how often a look-up is tried before a person decides.
const maxLookups = 10

// askLater puts a look-up off that came to nothing; after too many a person decides.
func (d *delivery) askLater(ctx context.Context, item store.OutboxItem, cause error) (gone bool, wait time.Duration, why string, err error) {
	why = "the EHR may have it, and can't be asked now: " + fault.Public(cause)
	err = d.inOrg(ctx, func(tx *store.Tx) error {
		n, err := tx.CountLookup(ctx, item)
		if err != nil {
			return err
		}
		if n >= maxLookups {
			gone = true
			return tx.Settle(ctx, item, cura.DeliveryUnknown, store.Receipt{}, cura.ItemReview, why+"; look there, then: starter push resolve --written or --release")
		}
		wait = max(Backoff(n, lookupWait, maxWait), retryAfter(cause))
		return tx.SetItem(ctx, item.ID, cura.ItemSending, why, time.Now().Add(wait))
	})
	return gone, wait, why, err
}
