package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

func quarantineCommand() *cli.Command {
	filter := func() []cli.Flag {
		return []cli.Flag{
			&cli.StringFlag{Name: "type", Usage: "only resources of this `TYPE`"},
			&cli.StringFlag{Name: "path", Usage: "only those with a reason about the element `PATH`, such as Observation.value, or one within it"},
			&cli.StringFlag{Name: "reason", Usage: "only those with a reason that has the words `TEXT`"},
		}
	}
	return &cli.Command{
		Name:  "quarantine",
		Usage: "resources that couldn't be validated or mapped",
		Description: "They have landed, so nothing is lost: after a change of the mapping or the profile they are tried again without the EHR.\n\n" +
			example("starter quarantine list st-mary/main --summary"),
		Subcommands: []*cli.Command{
			{
				Name:      "list",
				Usage:     "list what a connection has in quarantine, and why",
				ArgsUsage: "CONNECTION",
				Description: "Reasons name elements and say what is wrong with them, without the values.\n\n" +
					example("starter quarantine list st-mary/main --summary", "starter quarantine list st-mary/main --type Observation --path Observation.value"),
				Flags: append(filter(), &cli.BoolFlag{Name: "summary", Usage: "count them by reason"},
					&cli.IntFlag{Name: "limit", Value: maxListed, Usage: "list at most `N`, the oldest first"}),
				Action: listQuarantine,
			},
			{
				Name:      "retry",
				Usage:     "map again what a connection has in quarantine: all of it, what the flags say, or one",
				ArgsUsage: "CONNECTION [ID]",
				Description: "The EHR isn't asked. It prints how many are stored by now, and how many stay in quarantine, with the reasons.\n\n" +
					example("starter quarantine retry st-mary/main --path Observation.value", "starter quarantine retry st-mary/main 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"),
				Flags:  filter(),
				Action: retryQuarantine,
			},
		},
	}
}

// elementPath is what an element path looks like. Filters go through Temporal, where nothing else may come in with them.
var elementPath = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*(\[[0-9x]*\])?(\.[A-Za-z_][A-Za-z0-9_]*(\[[0-9x]*\])?)*$`)

// readFilter reads which of the quarantine is meant.
func readFilter(c *cli.Context) (store.QuarantineFilter, error) {
	f := store.QuarantineFilter{Path: c.String("path"), Reason: strings.TrimSpace(c.String("reason")), Limit: c.Int("limit")}
	if c.IsSet("type") {
		types, err := parseTypes([]string{c.String("type")})
		if err != nil {
			return f, err
		}
		if len(types) != 1 {
			return f, usagef("--type takes one resource type; see: %s --help", c.Command.HelpName)
		}
		f.Type = types[0]
	}
	switch {
	case f.Path != "" && !elementPath.MatchString(f.Path):
		return f, usagef("--path isn't an element path such as Observation.value")
	case c.IsSet("reason") && (f.Reason == "" || len(f.Reason) > 200 || strings.ContainsAny(f.Reason, "\r\n")):
		return f, usagef("--reason must be 1 to 200 bytes on one line")
	case c.IsSet("limit") && f.Limit < 1:
		return f, usagef("--limit is %d; it must be at least 1", f.Limit)
	}
	return f, nil
}

func listQuarantine(c *cli.Context) error {
	f, err := readFilter(c)
	if err != nil {
		return err
	}
	return onConnection(c, func(s *session, l store.Listed) error {
		if c.Bool("summary") {
			groups, err := s.quarantineSummary(c.Context, l, f)
			if err != nil {
				return err
			}
			return printRows(c, groups, "Nothing is in quarantine.", groupColumns()...)
		}
		var entries []store.QuarantineEntry
		var all int
		err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			if entries, err = tx.Quarantine(c.Context, l.Connection, f); err != nil {
				return err
			}
			all, err = tx.Quarantined(c.Context, l.Connection, f)
			return err
		})
		if err != nil {
			return err
		}
		if len(entries) < all {
			hint(c, "These are %d of %d; see more with --limit, or count them with --summary.", len(entries), all)
		}
		return printRows(c, entries, "Nothing is in quarantine.",
			column[store.QuarantineEntry]{"id", func(e store.QuarantineEntry) string { return e.ID }},
			column[store.QuarantineEntry]{"type", func(e store.QuarantineEntry) string { return string(e.Type) }},
			column[store.QuarantineEntry]{"since", func(e store.QuarantineEntry) string { return when(&e.Since) }},
			column[store.QuarantineEntry]{"reasons", func(e store.QuarantineEntry) string { return reasonLines(e.Reasons) }})
	})
}

func reasonLines(reasons []store.Reason) string {
	lines := make([]string, len(reasons))
	for i, r := range reasons {
		lines[i] = r.Path + ": " + r.Text
	}
	return orDash(strings.Join(lines, "\n"))
}

func groupColumns() []column[store.QuarantineGroup] {
	return []column[store.QuarantineGroup]{
		{"type", func(g store.QuarantineGroup) string { return string(g.Type) }},
		{"element", func(g store.QuarantineGroup) string { return g.Path }},
		{"reason", func(g store.QuarantineGroup) string { return g.Text }},
		{"resources", func(g store.QuarantineGroup) string { return strconv.Itoa(g.Count) }},
	}
}

func (s *session) quarantineSummary(ctx context.Context, l store.Listed, f store.QuarantineFilter) (groups []store.QuarantineGroup, err error) {
	err = s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		groups, err = tx.QuarantineSummary(ctx, l.Connection, f)
		return err
	})
	return groups, err
}

// retryView is what a retry has come to.
type retryView struct {
	workflows.RemapResult

	// Stored are in Cura by now, or wait for a person; Remaining are still in quarantine.
	Stored    int `json:"stored"`
	Remaining int `json:"remaining"`
	// Withheld are kept out by their patients' consents, and Skipped were too large to be kept.
	Withheld int `json:"withheld"`
	Skipped  int `json:"skipped"`
}

func retryQuarantine(c *cli.Context) error {
	f, err := readFilter(c)
	if err != nil {
		return err
	}
	name, id := c.Args().Get(0), c.Args().Get(1)
	switch {
	case name == "" || c.NArg() > 2:
		return usagef("%s takes the connection (its id, ORG/NAME or NAME) and, for one resource, its id in quarantine; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	case c.NArg() == 2 && uuid.Validate(id) != nil:
		return usagef("%q isn't an id in quarantine; list them with: starter quarantine list %s", id, name)
	case id != "" && (c.IsSet("type") || c.IsSet("path") || c.IsSet("reason")):
		return usagef("an id says which one is meant: leave out --type, --path and --reason")
	}
	return onDatabaseWith(c, func(s *session) error {
		l, err := s.store.FindConnection(c.Context, name)
		if err != nil {
			return err
		}
		if _, err := s.inService(c.Context, l); err != nil {
			return err
		}
		in := workflows.RemapInput{Target: target(l)}
		in.Selection = activities.Selection{Only: activities.RetakeQuarantined, Quarantine: id, Path: f.Path, Reason: f.Reason}
		if f.Type != "" {
			in.Types = []cura.ResourceType{f.Type}
		}
		workflowID := workflows.QuarantineRetryID(l.Connection)
		if id != "" {
			t, err := s.inQuarantine(c.Context, l, id)
			if err != nil {
				return err
			}
			in.Types, workflowID = []cura.ResourceType{t}, workflowID+"/"+id
		} else if empty, err := s.quarantineEmpty(c.Context, l, f); err != nil || empty {
			if err == nil {
				err = printRetried(c, retryView{})
			}
			return err
		}
		details := map[string]any{"quarantine": id, "type": f.Type, "path": f.Path, "reason": f.Reason}
		result, err := s.remap(c, l, workflowID, "quarantine retry", "Retry of what "+path(l)+" has in quarantine", in, details)
		if err != nil {
			return err
		}
		v := retryView{RemapResult: result}
		for _, t := range result.Types {
			v.Stored += t.Accepted
			v.Remaining += t.Same + t.Rejected + t.Excluded
			v.Withheld += t.Withheld
			v.Skipped += t.Skipped
		}
		return printRetried(c, v)
	})
}

// quarantineEmpty reports whether a filter finds nothing. Words that no reason has don't get any further than this.
func (s *session) quarantineEmpty(ctx context.Context, l store.Listed, f store.QuarantineFilter) (bool, error) {
	n := 0
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		var err error
		n, err = tx.Quarantined(ctx, l.Connection, f)
		return err
	})
	return n == 0, err
}

// inQuarantine gives the type of what is in quarantine under an id, and fails where nothing is.
func (s *session) inQuarantine(ctx context.Context, l store.Listed, id string) (cura.ResourceType, error) {
	var entry store.QuarantineEntry
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		var err error
		entry, err = tx.QuarantineEntry(ctx, l.Connection, id)
		return err
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return "", usagef("%s has nothing in quarantine with the id %s; list what it has with: starter quarantine list %s", path(l), id, path(l))
	case err == nil && entry.ClosedAt != nil:
		return "", usagef("%s isn't in quarantine any more: it came out, or another version came, at %s", id, when(entry.ClosedAt))
	}
	return entry.Type, err
}

func printRetried(c *cli.Context, v retryView) error {
	if asJSON(c) {
		if err := printJSON(c, v); err != nil {
			return err
		}
		return retryLeft(v)
	}
	text := fmt.Sprintf("%d are stored now, %d remain in quarantine.", v.Stored, v.Remaining)
	if v.Stored+v.Remaining+v.Withheld+v.Skipped == 0 {
		text = "Nothing of that is in quarantine."
	}
	if v.Withheld > 0 {
		text += fmt.Sprintf(" %d are withheld by their patients' consents.", v.Withheld)
	}
	if v.Skipped > 0 {
		text += fmt.Sprintf(" %d were landed without their content, so only the EHR can give them again.", v.Skipped)
	}
	fmt.Fprintln(c.App.Writer, text)
	printNames(c, "Why they remain", v.Types, func(r activities.Retaken) map[string]int { return r.Reasons })
	for _, e := range v.Ended {
		fmt.Fprintf(c.App.Writer, "\n%s wasn't tried: %s\n", e.Type, e.Details.Detail)
	}
	return retryLeft(v)
}

// retryLeft is the error of a retry that didn't come to its end.
func retryLeft(v retryView) error {
	if v.Run == "" {
		return nil
	}
	return remapLeft(v.RemapResult)
}
