package store

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Intent is what the gate has decided: the proof that is kept with the delivery.
type Intent struct {
	Item        OutboxItem
	Resource    string
	ContentHash [32]byte
	// ConsentEntry is the entry of the log that permits it; 0 for what is exempt.
	ConsentEntry int64
	ConsentEpoch int64
}

// PutIntent lets an item through the gate: its delivery is INTENT. A delivery that was there, and of which nothing is on its
// way, is begun anew.
func (tx *Tx) PutIntent(ctx context.Context, in Intent) error {
	var entry *int64
	if in.ConsentEntry != 0 {
		entry = &in.ConsentEntry
	}
	a := in.Item.Artefact
	tag, err := tx.tx.Exec(ctx, `
		INSERT INTO push.ledger AS d (org_id, connection_id, artefact_id, artefact_version, item_id, profile_id, resource, state, content_hash,
			consent_entry, consent_epoch, author_role, decided_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'intent', $8, $9, $10, $11, clock_timestamp())
		ON CONFLICT (org_id, connection_id, artefact_id, artefact_version) DO UPDATE
			SET state = 'intent', profile_id = excluded.profile_id, resource = excluded.resource, content_hash = excluded.content_hash,
				consent_entry = excluded.consent_entry, consent_epoch = excluded.consent_epoch, author_role = excluded.author_role,
				decided_at = excluded.decided_at, settled_at = NULL, send_deadline = NULL
			WHERE d.state IN ('intent', 'rejected', 'cancelled-by-consent')`,
		tx.org, in.Item.Connection, a.ID, a.Version, in.Item.ID, in.Item.Profile, in.Resource, in.ContentHash[:], entry, in.ConsentEpoch, a.Author.Role)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return fault.New("letting a push through", fault.Conflict, "its delivery is under way already")
	}
	tag, err = tx.tx.Exec(ctx, `
		UPDATE push.outbox SET state = 'sending', why = '', updated_at = clock_timestamp()
		WHERE org_id = $1 AND item_id = $2 AND state IN ('queued', 'sending')`, tx.org, in.Item.ID)
	if err == nil && tag.RowsAffected() == 0 {
		return fault.New("letting a push through", fault.Conflict, "somebody has taken it out of the queue")
	}
	tx.auditPush(audit.PushDecided, in.Item, audit.Success, map[string]any{
		"epoch": in.ConsentEpoch, "consent_entry": in.ConsentEntry, "role": a.Author.Role, "exempt": in.Item.Exempt,
	})
	return err
}

// Deny records that the gate doesn't let an item through, and why.
func (tx *Tx) Deny(ctx context.Context, item OutboxItem, code, why string) error {
	tx.auditPush(audit.PushDecided, item, audit.Denied, map[string]any{"code": code, "role": item.Artefact.Author.Role})
	return tx.SetItem(ctx, item.ID, cura.ItemDenied, why, time.Time{})
}

// MarkSent says that from the commit on bytes may leave, until the deadline: grace from now by the database's clock. It is a
// fault.Conflict where the delivery isn't INTENT any more: somebody else sends it, or it was cancelled.
func (tx *Tx) MarkSent(ctx context.Context, item OutboxItem, grace time.Duration) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE push.ledger SET state = 'sent', sends = sends + 1, send_deadline = clock_timestamp() + $3,
			first_sent_at = coalesce(first_sent_at, clock_timestamp())
		WHERE org_id = $1 AND item_id = $2 AND state = 'intent'`, tx.org, item.ID, grace)
	if err == nil && tag.RowsAffected() == 0 {
		return fault.New("sending", fault.Conflict, "the delivery isn't waiting to be sent any more")
	}
	tx.auditPush(audit.PushSent, item, audit.Success, nil)
	return err
}

// Receipt is what the EHR said of a write.
type Receipt struct {
	EHRID, Version, ETag string
	Status               int
}

// Settle ends what is SENT or UNKNOWN: to which state, by which receipt, and where that leaves the item.
func (tx *Tx) Settle(ctx context.Context, item OutboxItem, to cura.DeliveryState, r Receipt, state cura.ItemState, why string) error {
	settled := to != cura.DeliveryUnknown && to != cura.DeliveryIntent
	tag, err := tx.tx.Exec(ctx, `
		UPDATE push.ledger SET state = $3, send_deadline = NULL, settled_at = CASE WHEN $4 THEN clock_timestamp() END,
			ehr_id = CASE WHEN $5 = '' THEN ehr_id ELSE $5 END, version_id = $6, etag = $7, status = $8
		WHERE org_id = $1 AND item_id = $2 AND state IN ('intent', 'sent', 'unknown') AND ($9 = 0 OR sends = $9)`,
		tx.org, item.ID, to, settled, r.EHRID, r.Version, r.ETag, r.Status, item.Send)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return fault.New("settling a delivery", fault.Conflict, "it is settled already, or at another send")
	}
	outcome := audit.Success
	if to == cura.DeliveryRejected || to == cura.DeliveryUnknown {
		outcome = audit.Failure
	}
	tx.auditPush(audit.PushSettled, item, outcome, map[string]any{"state": to, "status": r.Status})
	if state == cura.ItemReview {
		if err := tx.markAttention(ctx, item.Connection); err != nil {
			return err
		}
	}
	return tx.SetItem(ctx, item.ID, state, why, time.Time{})
}

// Withdraw takes back what was SENT and of which provably nothing was written: it is INTENT again. It is a fault.Conflict where
// the item is at another send by now.
func (tx *Tx) Withdraw(ctx context.Context, item OutboxItem) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE push.ledger SET state = 'intent', send_deadline = NULL
		WHERE org_id = $1 AND item_id = $2 AND state = 'sent' AND ($3 = 0 OR sends = $3)`, tx.org, item.ID, item.Send)
	if err == nil && tag.RowsAffected() == 0 && item.Send != 0 {
		return fault.New("withdrawing a send", fault.Conflict, "it isn't under way any more: somebody has taken the item over")
	}
	tx.auditPush(audit.PushSettled, item, audit.Failure, map[string]any{"state": cura.DeliveryIntent, "withdrawn": true})
	return err
}

// CountLookup counts one look-up of an unknown delivery, and returns how many there have been.
func (tx *Tx) CountLookup(ctx context.Context, item OutboxItem) (n int, err error) {
	err = tx.tx.QueryRow(ctx, `UPDATE push.ledger SET lookups = lookups + 1 WHERE org_id = $1 AND item_id = $2 RETURNING lookups`, tx.org, item.ID).Scan(&n)
	return n, err
}

// Cancel takes an item out of the queue because a person says so; fault.Conflict where something of it may be on its way.
func (tx *Tx) Cancel(ctx context.Context, item OutboxItem, why, actor string) error {
	if item.Delivery != nil {
		switch item.Delivery.State {
		case cura.DeliveryIntent:
			if err := tx.move(ctx, item, cura.DeliveryRejected); err != nil {
				return err
			}
		case cura.DeliveryRejected, cura.DeliveryCancelled: // nothing of it is on its way
		case cura.DeliverySent, cura.DeliveryConfirmed, cura.DeliveryPresent, cura.DeliveryUnknown:
			return fault.Newf("cancelling the item", fault.Conflict, "its delivery is %s", item.Delivery.State).
				WithFix("What the EHR may have is withdrawn with: starter push retract")
		}
	}
	tx.auditActor(audit.PushCancelled, item, audit.Success, actor, map[string]any{"by": "person"})
	return tx.SetItem(ctx, item.ID, cura.ItemCancelled, why, time.Time{})
}

// cancelByConsent cancels items that consent doesn't permit any more, for the reason that each has as its Why. It is a
// fault.Conflict where one of them is on its way by now.
func (tx *Tx) cancelByConsent(ctx context.Context, items []OutboxItem) error {
	if len(items) == 0 {
		return nil
	}
	ids, whys := make([]string, len(items)), make([]string, len(items))
	var intents []string
	for i, item := range items {
		ids[i], whys[i] = item.ID, "consent was withdrawn: "+item.Why
		if item.Delivery != nil {
			intents = append(intents, item.ID)
		}
		tx.auditPush(audit.PushCancelled, item, audit.Denied, map[string]any{"by": "consent"})
	}
	tag, err := tx.tx.Exec(ctx, `
		UPDATE push.ledger SET state = 'cancelled-by-consent', settled_at = clock_timestamp()
		WHERE org_id = $1 AND item_id = ANY($2::uuid[]) AND state = 'intent'`, tx.org, intents)
	if err != nil {
		return err
	}
	if int(tag.RowsAffected()) < len(intents) {
		return fault.New("cancelling a delivery", fault.Conflict, "it is on its way")
	}
	_, err = tx.tx.Exec(ctx, `
		UPDATE push.outbox o SET state = 'cancelled', why = c.why, due_at = '-infinity', attempts = 0, updated_at = clock_timestamp()
		FROM unnest($2::uuid[], $3::text[]) AS c (item_id, why) WHERE o.org_id = $1 AND o.item_id = c.item_id`, tx.org, ids, whys)
	return err
}

func (tx *Tx) move(ctx context.Context, item OutboxItem, to cura.DeliveryState) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE push.ledger SET state = $3, settled_at = clock_timestamp() WHERE org_id = $1 AND item_id = $2 AND state = 'intent'`, tx.org, item.ID, to)
	if err == nil && tag.RowsAffected() == 0 {
		return fault.New("cancelling a delivery", fault.Conflict, "it is on its way")
	}
	return err
}

// Requeue puts an item that was denied, cancelled, rejected or given up back at the end of its own turn: the gate decides anew.
func (tx *Tx) Requeue(ctx context.Context, item OutboxItem, actor string) error {
	tx.auditActor(audit.PushQueued, item, audit.Success, actor, map[string]any{"again": true})
	_, err := tx.tx.Exec(ctx, `
		UPDATE push.outbox SET state = 'queued', why = '', attempts = 0, due_at = '-infinity', updated_at = clock_timestamp() WHERE org_id = $1 AND item_id = $2`,
		tx.org, item.ID)
	return err
}

// Resolve settles an unknown delivery as a person has found it to be.
func (tx *Tx) Resolve(ctx context.Context, item OutboxItem, written bool, ehrID, actor string) error {
	if item.Delivery == nil || item.Delivery.State != cura.DeliveryUnknown {
		return fault.New("resolving the item", fault.Conflict, "its outcome isn't unknown").WithFix("See what it waits for with: starter push show")
	}
	tx.auditActor(audit.PushSettled, item, audit.Success, actor, map[string]any{"by": "person", "written": written})
	if written {
		return tx.Settle(ctx, item, cura.DeliveryConfirmed, Receipt{EHRID: ehrID}, cura.ItemDelivered, "a person has found it at the EHR")
	}
	return tx.Settle(ctx, item, cura.DeliveryIntent, Receipt{}, cura.ItemQueued, "a person says that the EHR doesn't have it")
}

// HandOver notes that a person has handed an item over that waited for that.
func (tx *Tx) HandOver(ctx context.Context, item OutboxItem, actor string) error {
	if item.State != cura.ItemManual && item.State != cura.ItemHeld {
		return fault.Newf("handing the item over", fault.Conflict, "it is %s", item.State).WithFix("See what it waits for with: starter push show")
	}
	tx.auditActor(audit.PushSettled, item, audit.Success, actor, map[string]any{"by": "person", "handed_over": true})
	return tx.SetItem(ctx, item.ID, cura.ItemDelivered, "a person has handed it over", time.Time{})
}

// ViewItem records that a person has looked at what an item says.
func (tx *Tx) ViewItem(item OutboxItem, actor string) {
	tx.auditActor(audit.PushViewed, item, audit.Success, actor, nil)
}

// OursWritten finds which of the EHR's resources of a type were written by Cura, by their EHR ids.
func (tx *Tx) OursWritten(ctx context.Context, connection cura.ConnectionID, resource string, ids []string) (map[string]bool, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT ehr_id FROM push.ledger WHERE org_id = $1 AND connection_id = $2 AND resource = $3 AND ehr_id = ANY($4) AND ehr_id <> ''`,
		tx.org, connection, resource, ids)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	ours := make(map[string]bool, len(found))
	for _, id := range found {
		ours[id] = true
	}
	return ours, err
}

// WrittenAs is the EHR's id of an artefact version that was delivered; empty where it wasn't.
func (tx *Tx) WrittenAs(ctx context.Context, connection cura.ConnectionID, artefact string, version int) (r Receipt, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT ehr_id, version_id, etag FROM push.ledger
		WHERE org_id = $1 AND connection_id = $2 AND artefact_id = $3 AND artefact_version = $4 AND state IN ('confirmed', 'already-present')`,
		tx.org, connection, artefact, version).Scan(&r.EHRID, &r.Version, &r.ETag)
	if errors.Is(err, pgx.ErrNoRows) {
		return Receipt{}, nil
	}
	return r, err
}

func (tx *Tx) markAttention(ctx context.Context, connection cura.ConnectionID) error {
	_, err := tx.tx.Exec(ctx, `UPDATE directory.connections SET attention = true WHERE org_id = $1 AND connection_id = $2`, tx.org, connection)
	return err
}

func (tx *Tx) auditPush(kind audit.Kind, item OutboxItem, outcome audit.Outcome, more map[string]any) {
	tx.auditActor(kind, item, outcome, "", more)
}

func (tx *Tx) auditActor(kind audit.Kind, item OutboxItem, outcome audit.Outcome, actor string, more map[string]any) {
	details := map[string]any{"item": item.ID, "kind": item.Artefact.Kind, "version": item.Artefact.Version}
	maps.Copy(details, more)
	tx.Audit(audit.Record{Kind: kind, Actor: actor, Connection: item.Connection, Outcome: outcome, Details: details})
}

// announce tells the hospitals of a change of consent: an outbox item for each connection that takes consent events and
// hasn't told of the change itself.
func (tx *Tx) announce(ctx context.Context, profile cura.ProfileID, before, after ConsentHead, log []ConsentEntry, now time.Time) error {
	event, from := "expired", ""
	if after.Entry != before.Entry && len(log) > 0 {
		last := log[len(log)-1]
		from = last.Key
		switch {
		case last.EnteredInError || last.Consent.Status != "active":
			event = "revoked"
		case last.Consent.RootType == "deny":
			event = "changed"
		default:
			event = "granted"
		}
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT l.link_id::text, l.connection_id FROM sync.patient_links l JOIN sync.connections c USING (org_id, connection_id)
		WHERE l.org_id = $1 AND l.profile_id = $2 AND l.replaced_by = '' AND c.removed_at IS NULL AND c.shadow_of IS NULL
			AND coalesce(c.deliveries ->> 'consent-event', 'off') <> 'off' AND NOT starts_with($3, c.connection_id::text || '/')`, tx.org, profile, from)
	if err != nil {
		return err
	}
	type place struct {
		link       string
		connection cura.ConnectionID
	}
	places, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (place, error) {
		var p place
		err := row.Scan(&p.link, &p.connection)
		return p, err
	})
	if err != nil {
		return err
	}
	for _, p := range places {
		_, err := tx.AddItem(ctx, p.connection, p.link, cura.Artefact{
			Kind: cura.ConsentEvent, ID: uuid.NewString(), Version: 1, Author: cura.Author{Name: "Cura", Role: cura.RoleConsentOfficer}, AuthoredAt: now,
			ConsentEvent: &cura.ConsentContent{Event: event, At: now, Epoch: after.Epoch},
		}, ExemptEvent, audit.Worker)
		if err != nil {
			return err
		}
	}
	return nil
}
