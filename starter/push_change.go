package main

import (
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// pushChangeCommands are the commands by which a person moves an item on.
func pushChangeCommands() []*cli.Command {
	const id = "0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"
	return []*cli.Command{
		{
			Name:      "retry",
			Usage:     "put an item back into its queue, where consent and role are asked anew",
			ArgsUsage: "[CONNECTION] ITEM",
			Description: "For what was denied, cancelled, rejected or given up. Of what the EHR may have, say first whether it does: starter push resolve\n\n" +
				example("starter push retry "+id),
			Action: func(c *cli.Context) error { return changeItem(c, audit.PushQueued, retryItem) },
		},
		{
			Name:      "cancel",
			Usage:     "take an item out of its queue",
			ArgsUsage: "[CONNECTION] ITEM",
			Description: "Only while nothing of it can be on its way. What the EHR has is withdrawn with: starter push retract\n\n" +
				example("starter push cancel "+id),
			Action: func(c *cli.Context) error { return changeItem(c, audit.PushCancelled, cancelItem) },
		},
		{
			Name:      "retract",
			Usage:     "withdraw what was delivered: the EHR is told that it was entered in error",
			ArgsUsage: "[CONNECTION] ITEM",
			Description: "It is queued as a new version without content, and may go after consent was withdrawn.\n\n" +
				example("starter push retract st-mary/main "+id),
			Action: func(c *cli.Context) error { return changeItem(c, audit.PushQueued, retractItem) },
		},
		{
			Name:      "resolve",
			Usage:     "say what became of an item that the EHR may have, or that was handed over",
			ArgsUsage: "[CONNECTION] ITEM",
			Description: "Look at the EHR first. --written: it is there (of a held one: it is filed), or was handed over. --release: it isn't there and can't be coming; it is\n" +
				"sent again.\n\n" +
				example("starter push resolve "+id+" --written", "starter push resolve "+id+" --release"),
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "written", Usage: "the EHR has it, or a person has handed it over"},
				&cli.StringFlag{Name: "id", Usage: "the EHR's `ID` of the resource, where it is known: a retraction needs it"},
				&cli.BoolFlag{Name: "release", Usage: "the EHR doesn't have it: send it again"},
			},
			Action: resolveItem,
		},
	}
}

// itemChange is what a command does to an item that it has to itself. It gives the item to show afterwards, and what was done.
type itemChange func(c *cli.Context, s *session, tx *store.Tx, item store.OutboxItem) (shown, did string, err error)

// changeItem lets a person who may do so change an item; kind is what is recorded otherwise.
func changeItem(c *cli.Context, kind audit.Kind, change itemChange) error {
	return onItem(c, func(s *session, l store.Listed, found store.OutboxItem) error {
		if _, err := s.leave(c, orgOf(l), demand{kind, l.Connection, []cura.Role{cura.RoleOps}}); err != nil {
			return err
		}
		var item store.OutboxItem
		var did string
		err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			locked, err := tx.LockItem(c.Context, found.ID)
			if err != nil {
				return err
			}
			var shown string
			if shown, did, err = change(c, s, tx, locked); err != nil {
				return err
			}
			if item, err = tx.Item(c.Context, shown); err != nil {
				return err
			}
			return tx.RefreshAttention(c.Context, l.Connection)
		})
		if err != nil {
			return err
		}
		hint(c, "See what becomes of it with: starter push show %s", item.ID)
		return printOne(c, viewOfItem(l, item), did)
	})
}

func retryItem(c *cli.Context, s *session, tx *store.Tx, item store.OutboxItem) (shown, did string, err error) {
	switch {
	case unknown(item):
		return "", "", fault.New("trying the item again", fault.Conflict, "the EHR may have it already").
			WithFix("Look there, then: starter push resolve " + item.ID + " --written or --release")
	case !slices.Contains([]cura.ItemState{cura.ItemDenied, cura.ItemCancelled, cura.ItemRejected, cura.ItemReview}, item.State):
		return "", "", fault.Newf("trying the item again", fault.Conflict, "it is %s", item.State).
			WithFix("Only what was denied, cancelled, rejected or given up is tried again; see: starter push show " + item.ID)
	}
	return item.ID, "Item " + item.ID + " is queued again.", tx.Requeue(c.Context, item, s.actor)
}

func cancelItem(c *cli.Context, s *session, tx *store.Tx, item store.OutboxItem) (shown, did string, err error) {
	switch item.State {
	case cura.ItemCancelled:
		return "", "", fault.New("cancelling the item", fault.Conflict, "it is cancelled already")
	case cura.ItemDelivered, cura.ItemHeld:
		return "", "", fault.Newf("cancelling the item", fault.Conflict, "it is %s", item.State).
			WithFix("Withdraw it with: starter push retract " + item.ID)
	case cura.ItemQueued, cura.ItemSending, cura.ItemDenied, cura.ItemRejected, cura.ItemReview, cura.ItemManual:
	}
	return item.ID, "Item " + item.ID + " is cancelled.", tx.Cancel(c.Context, item, "cancelled by a person", s.actor)
}

func retractItem(c *cli.Context, s *session, tx *store.Tx, item store.OutboxItem) (shown, did string, err error) {
	const op = "retracting the item"
	conn, err := tx.Connection(c.Context, item.Connection)
	if err != nil {
		return "", "", err
	}
	versions, err := tx.Versions(c.Context, item.Connection, item.Artefact.ID)
	if err != nil {
		return "", "", err
	}
	switch {
	case item.State != cura.ItemDelivered && item.State != cura.ItemHeld:
		return "", "", fault.Newf(op, fault.Conflict, "it is %s: the EHR doesn't have it for certain", item.State).
			WithFix("What waits is stopped with: starter push cancel " + item.ID)
	case item.Artefact.Retracts:
		return "", "", fault.New(op, fault.Conflict, "it is a retraction itself").WithFix("Queue a new version of the artefact with: starter push add")
	case conn.Deliveries[item.Artefact.Kind] == cura.RouteFHIR && (item.Delivery == nil || item.Delivery.EHRID == ""):
		return "", "", fault.New(op, fault.Conflict, "Cura doesn't know which resource of the EHR it is").
			WithFix("Have the hospital withdraw it by hand")
	}
	latest := item.Artefact.Version
	for _, v := range versions {
		latest = max(latest, v.Artefact.Version)
		if v.Artefact.Retracts && v.Artefact.Replaces == item.Artefact.Version {
			return "", "", fault.Newf(op, fault.Conflict, "its retraction is %s", v.State).WithFix("See: starter push show " + v.ID)
		}
	}
	retraction := cura.Artefact{
		Kind: item.Artefact.Kind, ID: item.Artefact.ID, Version: latest + 1, Author: item.Artefact.Author,
		EncounterEHRID: item.Artefact.EncounterEHRID, Labels: levels(item.Artefact.Labels),
		AuthoredAt: time.Now().UTC(), Replaces: item.Artefact.Version, Retracts: true,
	}
	if err := mappings.CheckArtefact(retraction, time.Now()); err != nil {
		return "", "", fault.Wrap(op, fault.Data, "its retraction can't be written", err).WithFix("Have the hospital withdraw it by hand")
	}
	id, err := tx.AddItem(c.Context, item.Connection, item.Link, retraction, store.ExemptRetraction, s.actor)
	return id, "The retraction is queued as item " + id + ".", err
}

// levels are the labels that tell how secret something is, without those that tell what it is about: a retraction may go after
// consent was withdrawn.
func levels(labels []string) []string {
	return slices.DeleteFunc(slices.Clone(labels), func(label string) bool { return label != "R" && label != "V" })
}

func resolveItem(c *cli.Context) error {
	written, release, id := c.Bool("written"), c.Bool("release"), c.String("id")
	switch {
	case written == release:
		return usagef("say one of --written and --release; see: %s --help", c.Command.HelpName)
	case id != "" && (release || !fhir.IsID(id)):
		return usagef("--id goes with --written, and is the id of one resource alone, without its type before it")
	}
	return changeItem(c, audit.PushSettled, func(c *cli.Context, s *session, tx *store.Tx, item store.OutboxItem) (shown, did string, err error) {
		switch {
		case item.State == cura.ItemHeld && written && id == "":
			return item.ID, "Item " + item.ID + " is filed.", tx.HandOver(c.Context, item, s.actor)
		case item.State == cura.ItemManual && written && id == "":
			return item.ID, "Item " + item.ID + " was handed over.", tx.HandOver(c.Context, item, s.actor)
		case item.State == cura.ItemManual:
			return "", "", fault.New("resolving the item", fault.Conflict, "a person hands it over, so there is nothing to release, and no id").
				WithFix("Say: starter push resolve " + item.ID + " --written, or: starter push cancel " + item.ID)
		case item.State != cura.ItemReview:
			return "", "", fault.Newf("resolving the item", fault.Conflict, "it is %s; nothing waits for a person", item.State).
				WithFix("See: starter push show " + item.ID)
		}
		did = "Item " + item.ID + " is at the EHR."
		if release {
			did = "Item " + item.ID + " isn't at the EHR, and is queued again."
		}
		return item.ID, did, tx.Resolve(c.Context, item, written, id, s.actor)
	})
}
