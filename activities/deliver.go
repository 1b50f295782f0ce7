package activities

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// DeliverInput names a queue: what is to be delivered of one patient at one connection.
type DeliverInput struct {
	Target
	// Link is the id of the patient link.
	Link string `json:"link"`
}

// DeliverResult says where the queue stands.
type DeliverResult struct {
	// Items is how many items have left the queue, whichever way.
	Items int `json:"items"`
	// Idle: the queue is empty. Otherwise call again, after Wait.
	Idle bool          `json:"idle,omitempty"`
	Wait time.Duration `json:"wait,omitempty"`
	// Why is what it waits for, in words for a person; no PHI.
	Why string `json:"why,omitempty"`
}

// Bounds of one call of Deliver: it ends with the item that it is at.
const (
	deliverItems = 100
	deliverTime  = 20 * time.Second
)

// The waits of a queue whose first item can't go yet.
const (
	haltedWait   = 250 * time.Millisecond // a change of consent is being settled
	switchedWait = 30 * time.Second       // a kill switch is on; lifting it wakes the queue
	lookupWait   = time.Second
	maxWait      = 5 * time.Minute
)

// sendMargin is how much earlier than the database's deadline the sender's own is: what the two clocks and a commit may differ.
const sendMargin = 500 * time.Millisecond

// Deliver takes the items of a queue in their order: gate, write, settle; what a worker left behind is looked up first. A
// crash anywhere leaves the ledger's state, from which the next call goes on; nothing is written twice (DESIGN §5.4).
func (a *Activities) Deliver(ctx context.Context, in DeliverInput) (DeliverResult, error) {
	result, err := a.deliverQueue(ctx, in)
	return result, temporalError(ctx, err)
}

func (a *Activities) deliverQueue(ctx context.Context, in DeliverInput) (DeliverResult, error) {
	var result DeliverResult
	conn, open, err := a.connect(ctx, in.Target)
	if conn.RemovedAt != nil {
		return DeliverResult{Idle: true}, a.denyAll(ctx, in)
	}
	if err != nil {
		return result, err
	}
	defer heartbeat(ctx, func() any { return result.Items })()
	d := &delivery{a: a, in: in, conn: conn, client: open.client, vendor: open.profile}
	for began := time.Now(); result.Items < deliverItems && time.Since(began) < deliverTime && !stopping(ctx); {
		item, left, err := d.next(ctx)
		if err != nil {
			return result, err
		}
		if item == nil {
			if left {
				continue
			}
			result.Idle = true
			return result, d.filed(ctx)
		}
		gone, wait, why, err := d.step(ctx, *item)
		if err != nil {
			return result, err
		}
		if gone {
			result.Items++
		}
		if wait > 0 {
			result.Wait, result.Why = wait, why
			return result, nil
		}
	}
	return result, nil
}

// denyAll empties the queue of a connection that has been removed.
func (a *Activities) denyAll(ctx context.Context, in DeliverInput) error {
	d := &delivery{a: a, in: in}
	for {
		item, left, err := d.next(ctx)
		if err != nil || item == nil && !left {
			return err
		}
		if item == nil {
			continue
		}
		err = d.inOrg(ctx, func(tx *store.Tx) error { return tx.Deny(ctx, *item, "removed", "the connection has been removed") })
		if err != nil {
			return err
		}
	}
}

// delivery is one call of Deliver.
type delivery struct {
	a      *Activities
	in     DeliverInput
	conn   store.ConnectionState
	client *ehr.Client
	vendor *profile.Profile
}

func (d *delivery) inOrg(ctx context.Context, fn func(*store.Tx) error) error {
	return d.a.store.InOrg(ctx, d.in.Org, fn)
}

// next is the first item of the queue; nil: it is empty, or more has come meanwhile.
func (d *delivery) next(ctx context.Context) (item *store.OutboxItem, left bool, err error) {
	err = d.inOrg(ctx, func(tx *store.Tx) error {
		seq, err := tx.DeliverySeq(ctx, d.in.Link)
		if err != nil {
			return err
		}
		if item, err = tx.NextItem(ctx, d.in.Link); err != nil || item != nil {
			return err
		}
		left, err = tx.RestDelivery(ctx, d.in.Link, seq)
		return err
	})
	return item, left, err
}

// step takes an item one step on: gone says that it has left the queue, wait that it can't go on before.
func (d *delivery) step(ctx context.Context, item store.OutboxItem) (gone bool, wait time.Duration, why string, err error) {
	if item.DueAt != nil {
		if wait := time.Until(*item.DueAt); wait > 0 {
			return false, min(wait, maxWait), item.Why, nil
		}
	}
	state := cura.DeliveryState("")
	if item.Delivery != nil {
		state = item.Delivery.State
	}
	switch state {
	case cura.DeliverySent:
		return d.abandoned(ctx, item)
	case cura.DeliveryUnknown:
		return d.lookUp(ctx, item)
	case cura.DeliveryConfirmed, cura.DeliveryPresent:
		// The receipt is there; the item's own state went with a transaction that a person has overtaken.
		return true, 0, "", d.inOrg(ctx, func(tx *store.Tx) error { return tx.SetItem(ctx, item.ID, cura.ItemDelivered, "", time.Time{}) })
	case "", cura.DeliveryIntent, cura.DeliveryRejected, cura.DeliveryCancelled:
	}
	return d.send(ctx, item)
}

// abandoned deals with what a sender has left SENT: until the deadline it may still write; afterwards nobody knows.
func (d *delivery) abandoned(ctx context.Context, item store.OutboxItem) (gone bool, wait time.Duration, why string, err error) {
	if wait := time.Until(*item.Delivery.SendDeadline); wait > 0 {
		return false, wait, "another worker may be sending it", nil
	}
	return false, 0, "", d.inOrg(ctx, func(tx *store.Tx) error {
		return tx.Settle(ctx, item, cura.DeliveryUnknown, store.Receipt{}, cura.ItemSending, "its sender was lost; the EHR is asked")
	})
}

// cleared is what the gate lets through.
type cleared struct {
	item     store.OutboxItem
	write    profile.Write
	body     []byte
	updates  string // the EHR's id of the resource that is changed; empty: a new one
	etag     string
	epoch    int64
	decision consent.Decision
}

func (d *delivery) send(ctx context.Context, item store.OutboxItem) (gone bool, wait time.Duration, why string, err error) {
	c, gone, wait, why, err := d.gate(ctx, item)
	if fault.Is(err, fault.Conflict) {
		return false, haltedWait, "somebody has taken it out of the queue", nil
	}
	if c == nil || err != nil {
		return gone, wait, why, err
	}
	failpoint.Reach(failpoint.IntentWritten)
	sending, err := d.client.Prepare(ctx)
	if err != nil {
		return d.putOff(ctx, item, err)
	}
	defer sending.Close()
	if err := d.a.sendSlots.Acquire(ctx, 1); err != nil {
		return false, 0, "", err
	}
	defer d.a.sendSlots.Release(1)
	failpoint.Reach(failpoint.SendPrepared)
	grace := d.a.cfg.SendGrace
	deadline := time.Now().Add(grace - sendMargin)
	if until := c.decision.Until; !until.IsZero() && until.Before(deadline) {
		deadline = time.Now().Add(time.Until(until))
	}
	err = d.inOrg(ctx, func(tx *store.Tx) error {
		if err := tx.MarkSent(ctx, item, grace); err != nil {
			return err
		}
		marked, err := tx.Item(ctx, item.ID)
		if err != nil {
			return err
		}
		// What this sender says from now on is about this send, whatever has become of the item by then.
		item.Send = marked.Delivery.Sends
		c.item = item
		return nil
	})
	if fault.Is(err, fault.Conflict) {
		return false, haltedWait, "it is being decided anew", nil
	}
	if err != nil {
		return false, 0, "", err
	}
	failpoint.Reach(failpoint.SentMarked)
	var outcome written
	err = d.a.store.HoldConsent(ctx, store.Send{
		Org: d.in.Org, Connection: d.in.Connection, Profile: item.Profile, Epoch: c.epoch, Grace: grace + 2*time.Second,
	}, func(held context.Context) {
		held, done := d.a.sends.begin(held, item.Profile, grace+time.Second)
		defer done()
		outcome.tried = true
		outcome.receipt, outcome.err = sending.Send(held, ehr.Request{
			Type: c.write.Resource, ID: c.updates, Body: c.body, IfNoneExist: c.ifNoneExist(), IfMatch: c.ifMatch(), Deadline: deadline,
		})
	}, func(tx *store.Tx) error { return outcome.settle(ctx, tx, c, d.a.cfg.RetryAttempts) })
	switch {
	case errors.Is(err, store.ErrHalted):
		return d.takeBack(ctx, item, "the patient's consent is changing")
	case err != nil && (!outcome.tried || outcome.err != nil && !ehr.MaybeProcessed(outcome.err)):
		// Nothing was written, whatever became of the session.
		return d.takeBack(ctx, item, "the database session was lost")
	case err != nil:
		return false, 0, "", err // it stays SENT until the deadline; then it is looked up
	}
	failpoint.Reach(failpoint.Settled)
	return outcome.gone, outcome.wait, outcome.why, nil
}

// takeBack has an item wait of which nothing was written; where another worker has it by now, there is nothing to take back.
func (d *delivery) takeBack(ctx context.Context, item store.OutboxItem, why string) (gone bool, wait time.Duration, _ string, err error) {
	if err := d.a.store.TakeBack(ctx, d.in.Org, item); err != nil && !fault.Is(err, fault.Conflict) {
		return false, 0, "", err
	}
	return false, haltedWait, why, nil
}

// gate decides, and lets through: INTENT. Without a cleared item it has left the queue, or waits.
func (d *delivery) gate(ctx context.Context, item store.OutboxItem) (c *cleared, gone bool, wait time.Duration, why string, err error) {
	if err := d.a.store.EnsureHead(ctx, d.in.Org, item.Profile); err != nil {
		return nil, false, 0, "", err
	}
	err = d.inOrg(ctx, func(tx *store.Tx) error {
		if now, err := tx.Item(ctx, item.ID); err != nil || now.Link != item.Link || now.Profile != item.Profile {
			wait, why = haltedWait, "the patient's link is moving"
			return err
		}
		halt, err := tx.Halted(ctx, d.in.Connection, store.HaltPushes)
		if err != nil {
			return err
		}
		if halt != nil {
			wait, why = switchedWait, "pushes are halted by "+halt.Actor
			return nil
		}
		head, err := tx.ConsentHead(ctx, item.Profile)
		if err != nil {
			return err
		}
		if head.Halted {
			wait, why = haltedWait, "the patient's consent is changing"
			return nil
		}
		if item.Exempt == store.NotExempt {
			pending, err := tx.PatientPending(ctx, d.in.Connection, item.Link)
			if err != nil {
				return err
			}
			if pending != "" {
				gone = true
				return tx.Deny(ctx, item, "patient-pending", pending)
			}
		}
		policy, err := tx.OrgPolicy(ctx)
		if err != nil {
			return err
		}
		log, err := tx.ConsentLog(ctx, item.Profile)
		if err != nil {
			return err
		}
		decision := gate.Decide(item.Artefact, item.Exempt != store.NotExempt, policy, store.StandingConsents(log), time.Now())
		if !decision.Allow {
			gone = true
			return tx.Deny(ctx, item, string(decision.Code), decision.Reason)
		}
		c = &cleared{item: item, epoch: head.Epoch, decision: decision}
		gone, err = d.route(ctx, tx, c)
		if gone || err != nil {
			c = nil
		}
		return err
	})
	return c, gone, wait, why, err
}

// route finds out how the item is delivered. By FHIR the resource is made and the item is INTENT; otherwise it has left the queue.
func (d *delivery) route(ctx context.Context, tx *store.Tx, c *cleared) (gone bool, err error) {
	a := c.item.Artefact
	switch route := d.conn.Deliveries[a.Kind]; route {
	case cura.RouteManual:
		return true, tx.SetItem(ctx, c.item.ID, cura.ItemManual, "a person hands it over: starter push show, then starter push resolve --written", time.Time{})
	case cura.RouteFHIR:
	case cura.RouteOff, cura.RouteHL7v2, "":
		return true, tx.Deny(ctx, c.item, "off", fmt.Sprintf("the connection delivers no %s: starter connection edit --deliver %s=fhir", a.Kind, a.Kind))
	}
	write, offered := d.vendor.Write(a.Kind)
	if !offered {
		return true, tx.Deny(ctx, c.item, "unsupported", fmt.Sprintf("%s takes no %s by FHIR: starter connection edit --deliver %s=manual", d.vendor.Title, a.Kind, a.Kind))
	}
	if why := demands(a, write); why != "" {
		return true, tx.Deny(ctx, c.item, "unsupported", d.vendor.Title+" "+why)
	}
	c.write = write
	to := mappings.Outgoing{
		Resource: write.Resource, PatientEHRID: c.item.PatientEHRID, Notice: c.decision.Notice, PeriodEnd: write.PeriodEnd, ContentTypes: write.ContentTypes,
	}
	if a.Replaces > 0 {
		before, err := tx.WrittenAs(ctx, d.in.Connection, a.ID, a.Replaces)
		if err != nil {
			return false, err
		}
		to.WrittenEHRID = before.EHRID
		if write.Resource != "DocumentReference" || a.Retracts {
			c.updates, c.etag = before.EHRID, before.ETag
		}
	}
	if c.updates != "" && !write.Update {
		return true, tx.Deny(ctx, c.item, "unsupported", "the EHR changes nothing that was written: have the hospital withdraw it by hand")
	}
	if c.body, err = mappings.Outbound(a, to); err != nil {
		return true, tx.SetItem(ctx, c.item.ID, cura.ItemRejected, inWords(err), time.Time{})
	}
	var entry int64
	if c.decision.ConsentID != "" { // what is exempt has none
		if entry, err = strconv.ParseInt(c.decision.ConsentID, 10, 64); err != nil {
			return false, err
		}
	}
	return false, tx.PutIntent(ctx, store.Intent{
		Item: c.item, Resource: write.Resource, ContentHash: sha256.Sum256(c.body), ConsentEntry: entry, ConsentEpoch: c.epoch,
	})
}

// demands says what the EHR wants of an artefact and doesn't get; empty: it takes it.
func demands(a cura.Artefact, write profile.Write) string {
	diagnosis := a.Diagnosis
	switch {
	case a.Retracts:
		return ""
	case diagnosis != nil && len(write.Categories) > 0 && !slices.Contains(write.Categories, diagnosis.Category):
		return "takes no diagnosis of the category " + diagnosis.Category + ": send it as " + strings.Join(write.Categories, " or ")
	case write.EncounterRequired && a.EncounterEHRID == "" && (diagnosis == nil || diagnosis.Category == "encounter-diagnosis"):
		return "takes no " + string(a.Kind) + " without its encounter: send a new version that names it"
	}
	return ""
}

// inWords says what is wrong with an artefact: paths and reasons, no values.
func inWords(err error) string {
	rejected, ok := errors.AsType[*mappings.RejectedError](err)
	if !ok || len(rejected.Reasons) == 0 {
		return "it can't be written as FHIR"
	}
	return rejected.Reasons[0].Path + " " + rejected.Reasons[0].Text
}

// ifNoneExist makes a create conditional where the server does that: then it can be repeated.
func (c *cleared) ifNoneExist() string {
	if !c.write.ConditionalCreate || c.updates != "" {
		return ""
	}
	return ehr.ByIdentifier(mappings.IdentifierSystem, mappings.IdentifierOf(c.item.Artefact))
}

func (c *cleared) ifMatch() string {
	if c.updates == "" || !c.write.IfMatch {
		return ""
	}
	return c.etag
}

// putOff leaves an item for later after an attempt at which nothing was written; after too many a person decides.
func (d *delivery) putOff(ctx context.Context, item store.OutboxItem, cause error) (gone bool, wait time.Duration, why string, err error) {
	w := written{err: cause}
	err = d.inOrg(ctx, func(tx *store.Tx) error { return w.putOff(ctx, tx, item, d.a.cfg.RetryAttempts) })
	return w.gone, w.wait, w.why, err
}
