package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

func attentionCommand() *cli.Command {
	return &cli.Command{
		Name:  "attention",
		Usage: "everything, in any org, that waits for a person",
		Description: "What, since when, why, and the command that moves it on. It ends with code 3 when something waits, and 0 otherwise.\n\n" +
			example("starter attention"),
		Action: showAttention,
	}
}

// attentionItem is one thing that waits, with where.
type attentionItem struct {
	Connection string `json:"connection"`
	store.Waiting
}

func showAttention(c *cli.Context) error {
	return onDatabase(c, func(s *session) error {
		items, err := s.attention(c)
		if err != nil {
			return err
		}
		if asJSON(c) {
			if err := printJSON(c, items); err != nil {
				return err
			}
		} else {
			for _, item := range items {
				fmt.Fprintf(c.App.Writer, "%s  %s, since %s (%s)\n%s\n", item.Connection, item.What, when(&item.Since), ago(item.Since), indented(item.Why))
				for _, command := range item.Commands {
					fmt.Fprintln(c.App.Writer, "    "+command)
				}
				fmt.Fprintln(c.App.Writer)
			}
		}
		switch len(items) {
		case 0:
			hint(c, "Nothing waits for a person.")
			return nil
		case 1:
			return &waitingError{text: "1 thing waits for a person."}
		}
		return &waitingError{text: fmt.Sprintf("%d things wait for a person.", len(items))}
	})
}

// attention enters each org once. The directory's flag isn't asked: it can't tell of a sync that doesn't come.
func (s *session) attention(c *cli.Context) ([]attentionItem, error) {
	all, err := s.store.Connections(c.Context)
	if err != nil {
		return nil, err
	}
	listed := map[cura.ConnectionID]store.Listed{}
	var orgs []cura.OrgID
	seen := map[cura.OrgID]bool{}
	for _, l := range all {
		listed[l.Connection] = l
		if !seen[l.Org] {
			seen[l.Org] = true
			orgs = append(orgs, l.Org)
		}
	}
	items := []attentionItem{}
	for _, org := range orgs {
		var waiting []store.Waiting
		err := s.store.InOrg(c.Context, org, func(tx *store.Tx) error {
			var err error
			waiting, err = tx.Attention(c.Context)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, w := range waiting {
			l, ok := listed[w.Connection]
			if !ok {
				continue // it has been removed
			}
			w.Commands = typed(w.Commands, l)
			items = append(items, attentionItem{path(l), w})
		}
	}
	return items, nil
}
