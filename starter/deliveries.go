package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

func deliveriesCommand() *cli.Command {
	return &cli.Command{
		Name:      "deliveries",
		Usage:     "how pushes stand: what is queued, what left, what didn't and why",
		ArgsUsage: "[CONNECTION]",
		Description: "What may go after consent was withdrawn (consent events, retractions) is counted apart. With --watch it shows the change\n" +
			"until you interrupt it.\n\n" +
			example("starter deliveries", "starter deliveries st-mary/main --watch"),
		Flags: []cli.Flag{&cli.BoolFlag{Name: "watch", Usage: "follow it"}},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return onDatabase(c, func(s *session) error { return s.showDeliveries(c, "") })
			}
			return onConnection(c, func(s *session, l store.Listed) error { return s.showDeliveries(c, l.Connection) })
		},
	}
}

// deliveriesView is how the pushes of one connection stand.
type deliveriesView struct {
	Connection string                 `json:"connection"`
	ID         cura.ConnectionID      `json:"connection_id"`
	States     map[cura.ItemState]int `json:"states"`
	// Exempt counts those of them that may go after consent was withdrawn.
	Exempt map[store.Exempt]int `json:"exempt"`
	// OldestQueued is when the first was queued of those that wait or are on their way.
	OldestQueued *time.Time `json:"oldest_queued_at,omitempty"`
	// Stuck are those that didn't leave, or haven't yet, by state and reason.
	Stuck []store.ItemGroup `json:"stuck,omitempty"`
	Halts []haltOf          `json:"halts,omitempty"`
}

// put adds a group of items.
func (v *deliveriesView) put(g store.ItemGroup) {
	v.States[g.State] += g.Items
	if g.Exempt != store.NotExempt {
		v.Exempt[g.Exempt] += g.Items
	}
	switch g.State {
	case cura.ItemDelivered, cura.ItemHeld:
		return
	case cura.ItemQueued, cura.ItemSending:
		if v.OldestQueued == nil || g.Oldest.Before(*v.OldestQueued) {
			v.OldestQueued = &g.Oldest
		}
		if g.Why == "" {
			return
		}
	case cura.ItemDenied, cura.ItemCancelled, cura.ItemRejected, cura.ItemReview, cura.ItemManual:
	}
	v.Stuck = append(v.Stuck, g)
}

// deliveries reads how the pushes of all connections in service stand, or of one. Each org is entered once.
func (s *session) deliveries(ctx context.Context, only cura.ConnectionID) ([]deliveriesView, error) {
	all, err := s.store.Connections(ctx)
	if err != nil {
		return nil, err
	}
	views := []deliveriesView{}
	groups := map[cura.OrgID][]store.ItemGroup{}
	for _, l := range all {
		if only != "" && l.Connection != only {
			continue
		}
		v := deliveriesView{Connection: path(l), ID: l.Connection, States: map[cura.ItemState]int{}, Exempt: map[store.Exempt]int{}}
		removed := false
		err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
			conn, err := tx.Connection(ctx, l.Connection)
			if err != nil {
				return err
			}
			removed = conn.RemovedAt != nil
			if _, read := groups[l.Org]; !read {
				if groups[l.Org], err = tx.ItemGroups(ctx); err != nil {
					return err
				}
			}
			v.Halts, err = haltsOf(ctx, tx, l)
			return err
		})
		if err != nil {
			return nil, err
		}
		if removed && only == "" {
			continue
		}
		for _, g := range groups[l.Org] {
			if g.Connection == l.Connection {
				v.put(g)
			}
		}
		views = append(views, v)
	}
	return views, nil
}

func (s *session) showDeliveries(c *cli.Context, only cura.ConnectionID) error {
	if c.Bool("watch") {
		return s.watchDeliveries(c, only)
	}
	views, err := s.deliveries(c.Context, only)
	if err != nil {
		return err
	}
	return printDeliveries(c, views)
}

// watchDeliveries prints the deliveries whenever they have changed, until it is interrupted; on a terminal in the same place.
func (s *session) watchDeliveries(c *cli.Context, only cura.ConnectionID) error {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	out := c.App.Writer
	defer func() { c.App.Writer = out }()
	last := ""
	for {
		views, err := s.deliveries(c.Context, only)
		if c.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var text bytes.Buffer
		c.App.Writer = &text
		if err := printDeliveries(c, views); err != nil {
			return err
		}
		if text.String() != last {
			last = text.String()
			if terminal(out) {
				_, _ = io.WriteString(out, "\x1b[H\x1b[2J") // to the top, and wipe
			}
			if _, err := io.WriteString(out, last); err != nil {
				return err
			}
		}
		select {
		case <-c.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func printDeliveries(c *cli.Context, views []deliveriesView) error {
	if asJSON(c) {
		return printJSON(c, views)
	}
	columns := []column[deliveriesView]{{"connection", func(v deliveriesView) string { return v.Connection }}}
	for _, state := range itemStates() {
		columns = append(columns, column[deliveriesView]{string(state), func(v deliveriesView) string { return strconv.Itoa(v.States[state]) }})
	}
	columns = append(columns,
		column[deliveriesView]{"exempt", func(v deliveriesView) string {
			return strconv.Itoa(v.Exempt[store.ExemptEvent] + v.Exempt[store.ExemptRetraction])
		}},
		column[deliveriesView]{"oldest queued", func(v deliveriesView) string { return when(v.OldestQueued) }})
	if err := printTable(c, views, "There are no connections; add one with: starter connection add", columns...); err != nil {
		return err
	}
	var lines []string
	for _, v := range views {
		for _, h := range v.Halts {
			lines = append(lines, v.Connection+": halted: "+haltText(h.Halt), "    "+h.Lift)
		}
		for _, g := range v.Stuck {
			lines = append(lines, fmt.Sprintf("%s: %d %s: %s", v.Connection, g.Items, g.State, orElse(g.Why, "no reason is recorded")),
				"    starter push show "+g.Item)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(c.App.Writer, "\n"+strings.Join(lines, "\n"))
	return err
}
