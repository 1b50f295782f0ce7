package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "where all connections stand, or one with the steps of its onboarding",
		ArgsUsage: "[CONNECTION]",
		Description: "Without a worker, or without Temporal, it shows what the database knows. With --watch it follows the connection's\n" +
			"onboarding and ends as `starter onboard --watch` does.\n\n" +
			example("starter status", "starter status st-mary/main", "starter status st-mary/main --watch"),
		Flags: []cli.Flag{&cli.BoolFlag{Name: "watch", Usage: "follow the connection's onboarding until it is live or needs a person"}},
		Action: func(c *cli.Context) error {
			switch {
			case c.Bool("watch"):
				return watchStatus(c)
			case c.NArg() == 0:
				return statusOfAll(c)
			}
			return onConnection(c, func(s *session, l store.Listed) error { return s.statusOfOne(c, l) })
		},
	}
}

func watchStatus(c *cli.Context) error {
	return onConnection(c, func(s *session, l store.Listed) error {
		tc, err := s.temporal(c.Context)
		if err != nil {
			return err
		}
		defer tc.Close()
		return s.watchToEnd(c, tc, l)
	})
}

func statusOfAll(c *cli.Context) error {
	return onDatabase(c, func(s *session) error {
		rows, err := s.connections(c.Context)
		if err != nil {
			return err
		}
		for _, r := range rows {
			for _, h := range r.Halts {
				hint(c, "%s: halted: %s. Lift it with: %s", r.path(), haltText(h.Halt), h.Lift)
			}
		}
		return printRows(c, rows, "There are no connections; add one with: starter connection add",
			column[connectionRow]{"connection", connectionRow.path},
			column[connectionRow]{"phase", func(r connectionRow) string { return string(r.Phase) }},
			column[connectionRow]{"health", func(r connectionRow) string { return string(r.Health) }},
			column[connectionRow]{"waits for", func(r connectionRow) string { return string(r.WaitsFor) }},
			column[connectionRow]{"last run", lastRun},
			column[connectionRow]{"lag", lag},
			column[connectionRow]{"dead letters", func(r connectionRow) string { return strconv.Itoa(r.OpenDeadLetters) }})
	})
}

// lastRun says when the newest run ended, and how.
func lastRun(r connectionRow) string {
	if r.LastSync == nil {
		return "-"
	}
	return when(r.LastSync.FinishedAt) + " " + r.LastSync.Outcome
}

// lag is how long ago a run last ended complete.
func lag(r connectionRow) string {
	if r.LastComplete == nil {
		return "-"
	}
	return ago(*r.LastComplete)
}

// statusView is one connection with its onboarding.
type statusView struct {
	Connection string            `json:"connection"`
	ID         cura.ConnectionID `json:"connection_id"`
	Phase      cura.Phase        `json:"phase"`
	Health     cura.Health       `json:"health"`
	WaitsFor   cura.WaitsFor     `json:"waits_for"`
	Why        string            `json:"why,omitempty"`
	Commands   []string          `json:"commands,omitempty"`
	// Source is workflow, or database where no workflow could be asked.
	Source          string                      `json:"source"`
	Onboarding      *workflows.OnboardingStatus `json:"onboarding,omitempty"`
	LastSync        *store.Run                  `json:"last_sync,omitempty"`
	LastComplete    *time.Time                  `json:"last_complete_at,omitempty"`
	OpenDeadLetters int                         `json:"open_dead_letters"`
	Types           []typeView                  `json:"types"`
	Halts           []haltOf                    `json:"halts,omitempty"`
	Withheld        int                         `json:"withheld_patients,omitempty"`
}

func (s *session) statusOfOne(c *cli.Context, l store.Listed) error {
	row, err := s.connectionRow(c.Context, l)
	if err != nil {
		return err
	}
	v := statusView{
		Connection: path(l), ID: l.Connection, Phase: row.Phase, Health: row.Health, WaitsFor: row.WaitsFor, Why: row.Why,
		Commands: row.Commands, Source: "database", LastSync: row.LastSync, LastComplete: row.LastComplete, OpenDeadLetters: row.OpenDeadLetters,
		Halts: row.Halts, Withheld: row.Withheld,
	}
	err = s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
		v.Types, err = typeViews(c.Context, tx, row.ConnectionState)
		return err
	})
	if err != nil {
		return err
	}
	v.Onboarding, err = s.lastOnboarding(c, l)
	if err != nil {
		return err
	}
	// A live connection's health is watched over by its syncs; until then the onboarding knows best.
	if o := v.Onboarding; o != nil {
		v.Source = "workflow"
		if o.Phase != cura.PhaseLive {
			v.Phase, v.Health, v.WaitsFor, v.Why, v.Commands = o.Phase, o.Health, o.WaitsFor, o.Why, o.Commands
		}
	}
	v.Commands = typed(v.Commands, l)
	if asJSON(c) {
		return printJSON(c, v)
	}
	return v.print(c)
}

// lastOnboarding asks the newest onboarding of a connection for its status. nil: there was none, or nobody answers, of
// which the person is told.
func (s *session) lastOnboarding(c *cli.Context, l store.Listed) (*workflows.OnboardingStatus, error) {
	tc, err := s.temporal(c.Context)
	if err != nil {
		hint(c, "Temporal doesn't answer; this is what the database knows.")
		return nil, c.Err()
	}
	defer tc.Close()
	running, err := onboardingRuns(c.Context, tc, l.Connection)
	if err != nil {
		hint(c, "Temporal doesn't answer; this is what the database knows.")
		return nil, c.Err()
	}
	if running {
		status, answered, err := s.onboardingStatus(c.Context, tc, l)
		if !answered && err == nil {
			hint(c, "No worker answers; this is what the database knows.")
			return nil, nil //nolint:nilnil // nobody answered, which isn't an error here
		}
		return &status, err
	}
	status, err := onboardingResult(c.Context, tc, l)
	var f *fault.Error
	switch {
	case err == nil:
		return &status, nil
	case errors.As(err, &f) && f.Kind == fault.NotFound:
		return nil, nil //nolint:nilnil // it was never onboarded
	case c.Err() != nil:
		return nil, c.Err()
	}
	hint(c, "The last onboarding ended with an error; the Temporal Web UI shows its history.")
	return nil, nil //nolint:nilnil // the database still knows where the connection stands
}

func (v statusView) print(c *cli.Context) error {
	w := c.App.Writer
	fmt.Fprintf(w, "%s is at phase %s, health %s.\n", v.Connection, v.Phase, v.Health)
	if v.WaitsFor != cura.WaitsForNobody && v.WaitsFor != "" {
		fmt.Fprintf(w, "\nIt waits for a person (%s):\n%s\n", v.WaitsFor, indented(v.Why))
		for _, command := range v.Commands {
			fmt.Fprintln(w, "    "+command)
		}
	}
	if v.LastSync != nil {
		fmt.Fprintf(w, "\nThe last run (%s) ended %s at %s.", v.LastSync.Kind, v.LastSync.Outcome, when(v.LastSync.FinishedAt))
		if v.LastComplete != nil {
			fmt.Fprintf(w, " A run was last complete %s ago.", ago(*v.LastComplete))
		}
		fmt.Fprintln(w)
	}
	for _, h := range v.Halts {
		fmt.Fprintf(w, "Halted: %s. Lift it with: %s\n", haltText(h.Halt), h.Lift)
	}
	if v.Withheld > 0 {
		fmt.Fprintf(w, "%d patients aren't read, by their consents; see: starter connection show %s\n", v.Withheld, v.Connection)
	}
	if v.OpenDeadLetters > 0 {
		fmt.Fprintf(w, "%d dead letters are open; see: starter dead-letters list\n", v.OpenDeadLetters)
	}
	fmt.Fprintln(w)
	if o := v.Onboarding; o != nil {
		if err := printOnboarding(c, *o); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return printTable(c, v.Types, "",
		column[typeView]{"type", func(t typeView) string { return string(t.Type) }},
		column[typeView]{"read up to", func(t typeView) string { return when(t.Watermark) }},
		column[typeView]{"state", typeView.state})
}

// printOnboarding prints the steps of an onboarding, how far its backfill is, and its window.
func printOnboarding(c *cli.Context, o workflows.OnboardingStatus) error {
	err := printTable(c, o.Steps, "",
		column[workflows.Step]{"step", func(s workflows.Step) string { return s.Name }},
		column[workflows.Step]{"state", func(s workflows.Step) string { return s.State }},
		column[workflows.Step]{"began", func(s workflows.Step) string { return when(s.Began) }},
		column[workflows.Step]{"ended", func(s workflows.Step) string { return when(s.Ended) }},
		column[workflows.Step]{"what", func(s workflows.Step) string {
			if s.State == "waiting" && o.WaitsFor != cura.WaitsForNobody {
				return "see above"
			}
			return s.Text
		}})
	if err != nil {
		return err
	}
	if len(o.Backfill.Counts) > 0 {
		var rows []typeResult
		for _, t := range cura.ResourceTypes() {
			if counts, ok := o.Backfill.Counts[t]; ok {
				rows = append(rows, typeResult{Type: t, Counts: counts})
			}
		}
		fmt.Fprintf(c.App.Writer, "\nBackfill (%s):\n", o.Backfill.Outcome)
		err := printTable(c, rows, "", append([]column[typeResult]{{"type", func(r typeResult) string { return string(r.Type) }}},
			countColumns(func(r typeResult) cura.Counts { return r.Counts })...)...)
		if err != nil {
			return err
		}
	}
	if w := o.Window; !w.Ends.IsZero() {
		fmt.Fprintf(c.App.Writer, "\nThe monitoring window runs from %s to %s; it has been looked at %d times.\n", when(&w.Began), when(&w.Ends), w.Evaluations)
	}
	return nil
}
