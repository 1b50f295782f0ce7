package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

func deadLettersCommand() *cli.Command {
	return &cli.Command{
		Name:  "dead-letters",
		Usage: "reads that used up their retries",
		Description: "A dead letter holds the watermark of its type, so nothing is lost while it is open.\n\n" +
			example("starter dead-letters list"),
		Subcommands: []*cli.Command{
			{
				Name:        "list",
				Usage:       "list the open dead letters of all orgs",
				Description: example("starter dead-letters list", "starter dead-letters list --all"),
				Flags:       []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "those too that are closed"}},
				Action:      listDeadLetters,
			},
			{
				Name:        "show",
				Usage:       "show a dead letter",
				ArgsUsage:   "ID",
				Description: example("starter dead-letters show 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"),
				Action: func(c *cli.Context) error {
					return onDeadLetter(c, func(_ *session, letter letterView) error { return printLetter(c, letter) })
				},
			},
			{
				Name:        "replay",
				Usage:       "read again what a dead letter holds, and wait for the end",
				ArgsUsage:   "ID",
				Description: example("starter dead-letters replay 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"),
				Action:      replayDeadLetter,
			},
			{
				Name:      "discard",
				Usage:     "close a dead letter without replaying it",
				ArgsUsage: "ID",
				Description: "Its watermark stays where it is: the next sync reads the same range, and opens another one if that fails too.\n\n" +
					example("starter dead-letters discard 0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10 --reason \"the EHR was down\""),
				Flags:  []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "`WHY`, for the audit log; without any patient's data"}},
				Action: discardDeadLetter,
			},
		},
	}
}

// letterView is a dead letter with where it is.
type letterView struct {
	Path string `json:"connection"`
	store.DeadLetter

	listed store.Listed
}

// letters reads the dead letters of all orgs.
func (s *session) letters(ctx context.Context, all bool) ([]letterView, error) {
	connections, err := s.store.Connections(ctx)
	if err != nil {
		return nil, err
	}
	var views []letterView
	seen := map[cura.OrgID]bool{}
	byID := map[cura.ConnectionID]store.Listed{}
	for _, l := range connections {
		byID[l.Connection] = l
	}
	for _, l := range connections {
		if seen[l.Org] {
			continue
		}
		seen[l.Org] = true
		err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
			letters, err := tx.DeadLetters(ctx, all)
			for _, d := range letters {
				views = append(views, letterView{Path: path(byID[d.Connection]), DeadLetter: d, listed: byID[d.Connection]})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return views, nil
}

func listDeadLetters(c *cli.Context) error {
	return onDatabase(c, func(s *session) error {
		views, err := s.letters(c.Context, c.Bool("all"))
		if err != nil {
			return err
		}
		return printRows(c, views, "There are no dead letters.",
			column[letterView]{"id", func(v letterView) string { return string(v.ID) }},
			column[letterView]{"connection", func(v letterView) string { return v.Path }},
			column[letterView]{"type", func(v letterView) string { return string(v.Type) }},
			column[letterView]{"fault", func(v letterView) string { return string(v.Fault) }},
			column[letterView]{"attempts", func(v letterView) string { return strconv.Itoa(v.Attempts) }},
			column[letterView]{"runs", func(v letterView) string { return strconv.Itoa(v.Times) }},
			column[letterView]{"opened", func(v letterView) string { return when(&v.OpenedAt) }},
			column[letterView]{"state", func(v letterView) string { return v.State }})
	})
}

// onDeadLetter runs fn on the dead letter that the command's argument names.
func onDeadLetter(c *cli.Context, fn func(*session, letterView) error) error {
	id, err := oneWord(c, "the dead letter's id")
	if err != nil {
		return err
	}
	if _, err := uuid.Parse(id); err != nil {
		return usagef("%q isn't the id of a dead letter; list them with: starter dead-letters list", id)
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	views, err := s.letters(c.Context, true)
	if err != nil {
		return err
	}
	for _, v := range views {
		if string(v.ID) == id {
			return fn(s, v)
		}
	}
	return fault.Newf("looking for the dead letter", fault.NotFound, "there is no dead letter %s", id).
		WithFix("List them with: starter dead-letters list --all")
}

func printLetter(c *cli.Context, v letterView) error {
	lines := []string{
		"Dead letter  " + string(v.ID),
		"Connection   " + v.Path,
		"Type         " + string(v.Type),
		"Fault        " + string(v.Fault) + ": " + v.Detail,
		fmt.Sprintf("Tried        %d times in the last run, by %d runs", v.Attempts, v.Times),
		"Reads from   " + when(v.Since),
		"Opened       " + when(&v.OpenedAt),
		"Last seen    " + when(&v.LastAt),
		"State        " + v.State,
	}
	if v.ClosedAt != nil {
		lines = append(lines, "Closed       "+when(v.ClosedAt)+" by "+v.ClosedBy)
	} else {
		lines = append(lines, "", "Read it again with:  starter dead-letters replay "+string(v.ID), "Let go of it with:   starter dead-letters discard "+string(v.ID))
	}
	return printOne(c, v, lines...)
}

// stillOpen fails for a dead letter that is closed.
func stillOpen(v letterView) error {
	if v.State == "open" {
		return nil
	}
	return fault.Newf("opening the dead letter", fault.Conflict, "dead letter %s is %s already", v.ID, v.State).
		WithFix("List the open ones with: starter dead-letters list")
}

func replayDeadLetter(c *cli.Context) error {
	return onDeadLetter(c, func(s *session, v letterView) error {
		if err := stillOpen(v); err != nil {
			return err
		}
		tc, err := s.starting(c.Context)
		if err != nil {
			return err
		}
		defer tc.Close()
		if err := s.record(c.Context, v.listed, "dead-letters replay", audit.Success, map[string]any{"dead_letter": v.ID}); err != nil {
			return err
		}
		run, err := startSync(c.Context, tc, v.listed, workflows.ReplayID(v.ID), "Replay of a dead letter of "+v.Path,
			workflows.SyncInput{Target: target(v.listed), Types: []cura.ResourceType{v.Type}, Replay: v.ID, Patients: partition(v)})
		if err != nil {
			return err
		}
		result, err := s.awaitSync(c, v.listed, run, false)
		if err != nil {
			return err
		}
		return printResult(c, v.listed, result)
	})
}

func discardDeadLetter(c *cli.Context) error {
	return onDeadLetter(c, func(s *session, v letterView) error {
		if err := stillOpen(v); err != nil {
			return err
		}
		err := s.store.InOrg(c.Context, v.listed.Org, func(tx *store.Tx) error {
			tx.Audit(audit.Record{
				Kind: audit.OperatorCommand, Actor: s.actor, Connection: v.Connection, Outcome: audit.Success,
				Details: map[string]any{"command": "dead-letters discard", "dead_letter": v.ID, "reason": c.String("reason")},
			})
			return tx.CloseDeadLetter(c.Context, v.ID, "discarded", s.actor)
		})
		if err != nil {
			return err
		}
		return printOne(c, map[string]string{"id": string(v.ID), "state": "discarded"}, "Discarded dead letter "+string(v.ID)+".")
	})
}

// partition is the patient whom a dead letter is about, by Cura's own id; none for a whole type.
func partition(v letterView) []string {
	if v.Partition == "" {
		return nil
	}
	return []string{v.Partition}
}
