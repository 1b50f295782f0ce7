package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

func pauseCommand() *cli.Command {
	return &cli.Command{
		Name:      "pause",
		Usage:     "stop reading a connection, or one type of it, until somebody resumes it",
		ArgsUsage: "CONNECTION",
		Description: "What is being read stops at its next page and keeps its place; schedules start nothing meanwhile. Nothing is lost: what\n" +
			"changes at the EHR is read after the resume.\n\n" +
			example("starter pause st-mary/main --reason \"the hospital upgrades its EHR\"", "starter pause st-mary/main --type Observation"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "type", Usage: "the resource `TYPE` to pause", DefaultText: "the whole connection"},
			&cli.StringFlag{Name: "reason", Usage: "`WHY`, without any patient's data: it is kept in the audit log"},
		},
		Action: func(c *cli.Context) error {
			if reason := c.String("reason"); len(reason) > 500 || strings.ContainsAny(reason, "\r\n") {
				return usagef("--reason must be at most 500 bytes on one line; say it in a sentence")
			}
			return onPausable(c, func(s *session, l store.Listed, t cura.ResourceType) error {
				return s.pause(c, l, store.Pause{Type: t, By: s.actor, Reason: c.String("reason")})
			})
		},
	}
}

func resumeCommand() *cli.Command {
	return &cli.Command{
		Name:      "resume",
		Usage:     "go on reading a connection, or one type of it, that was paused",
		ArgsUsage: "CONNECTION",
		Description: "The whole connection and each type are paused and resumed by themselves.\n\n" +
			example("starter resume st-mary/main", "starter resume st-mary/main --type Observation"),
		Flags: []cli.Flag{&cli.StringFlag{Name: "type", Usage: "the resource `TYPE` to resume", DefaultText: "the whole connection"}},
		Action: func(c *cli.Context) error {
			return onPausable(c, func(s *session, l store.Listed, t cura.ResourceType) error { return s.resume(c, l, t) })
		},
	}
}

// onPausable runs fn on the connection that is named, with the type that --type names; empty: all of it.
func onPausable(c *cli.Context, fn func(*session, store.Listed, cura.ResourceType) error) error {
	var t cura.ResourceType
	if c.IsSet("type") {
		if given := listed([]string{c.String("type")}); len(given) != 1 {
			return usagef("--type takes one resource type; see: %s --help", c.Command.HelpName)
		}
		types, err := parseTypes([]string{c.String("type")})
		if err != nil {
			return err
		}
		t = types[0]
	}
	return onConnection(c, func(s *session, l store.Listed) error {
		conn, err := s.inService(c.Context, l)
		if err != nil {
			return err
		}
		if t != "" && !slices.Contains(conn.Types, t) {
			return fault.Newf("looking for the type", fault.NotFound, "%s doesn't pull %s", path(l), t).
				WithFix("It pulls " + typeList(conn.Types) + "; change that with: starter connection edit " + path(l) + " --types A,B")
		}
		return fn(s, l, t)
	})
}

func typeList(types []cura.ResourceType) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = string(t)
	}
	return strings.Join(names, ", ")
}

// pauseResult is what pause and resume print as JSON.
type pauseResult struct {
	Connection string            `json:"connection"`
	Type       cura.ResourceType `json:"type,omitempty"`
	// Changed is false where it was so already.
	Changed bool         `json:"changed"`
	Paused  *store.Pause `json:"paused,omitempty"`
}

// pause stores the pause, which is what readers look at, and then has the schedules start nothing meanwhile. Where Temporal
// doesn't answer the pause holds all the same.
func (s *session) pause(c *cli.Context, l store.Listed, p store.Pause) error {
	var standing store.Pause
	var fresh bool
	err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
		var err error
		standing, fresh, err = tx.Pause(c.Context, l.Connection, p)
		return err
	})
	if err != nil {
		return err
	}
	if p.Type == "" {
		if err := s.withTemporal(c.Context, func(tc client.Client) error { return pauseSchedules(c.Context, tc, l, standing) }); err != nil {
			if c.Err() != nil {
				return c.Err()
			}
			hint(c, "Temporal doesn't answer, so the schedules go on starting runs; they find the pause and read nothing.")
		}
	}
	text := pausedThing(l, p.Type) + " is paused. Go on with: " + resumeLine(l, p.Type)
	if !fresh {
		text = pausedThing(l, p.Type) + " is paused already " + sinceBy(standing) + "."
	}
	return printOne(c, pauseResult{Connection: path(l), Type: p.Type, Changed: fresh, Paused: &standing}, text)
}

// resume deletes the pause, then has the schedules start runs again and wakes a backfill that waits. It may be said again
// where the second half failed.
func (s *session) resume(c *cli.Context, l store.Listed, t cura.ResourceType) error {
	var was bool
	var left []store.Pause
	err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
		var err error
		if was, err = tx.Resume(c.Context, l.Connection, t, s.actor); err != nil {
			return err
		}
		left, err = tx.Pauses(c.Context, l.Connection)
		return err
	})
	if err != nil {
		return err
	}
	err = s.withTemporal(c.Context, func(tc client.Client) error {
		if t == "" {
			if err := resumeSchedules(c.Context, tc, l); err != nil {
				return err
			}
		}
		return signalResumed(c.Context, tc, l)
	})
	switch {
	case err == nil:
	case c.Err() != nil:
		return c.Err()
	case t == "":
		return fault.Wrap("resuming", fault.Unavailable, "the pause is taken away, but Temporal doesn't answer: the schedules may still be paused", err).
			WithFix("See that Temporal runs, then say again: " + resumeLine(l, t))
	default:
		hint(c, "Temporal doesn't answer; a backfill that waits looks again by itself.")
	}
	text := pausedThing(l, t) + " goes on."
	if !was {
		text = pausedThing(l, t) + " wasn't paused."
	}
	return printOne(c, pauseResult{Connection: path(l), Type: t, Changed: was}, append([]string{text}, pauseLines(left)...)...)
}

// withTemporal runs fn on a connection to Temporal.
func (s *session) withTemporal(ctx context.Context, fn func(client.Client) error) error {
	tc, err := s.temporal(ctx)
	if err != nil {
		return err
	}
	defer tc.Close()
	return fn(tc.Client)
}

// pausedThing names what is paused, at the beginning of a sentence.
func pausedThing(l store.Listed, t cura.ResourceType) string {
	if t == "" {
		return path(l)
	}
	return string(t) + " of " + path(l)
}

func resumeLine(l store.Listed, t cura.ResourceType) string {
	if t == "" {
		return "starter resume " + path(l)
	}
	return "starter resume " + path(l) + " --type " + string(t)
}

// sinceBy says since when something is paused, by whom, and why where they said so.
func sinceBy(p store.Pause) string {
	text := "since " + when(&p.Since) + " by " + p.By
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// pauseLines are a connection's pauses for a person, a line each.
func pauseLines(pauses []store.Pause) []string {
	lines := make([]string, len(pauses))
	for i, p := range pauses {
		what := "The whole connection"
		if p.Type != "" {
			what = string(p.Type)
		}
		lines[i] = what + " is paused " + sinceBy(p)
	}
	return lines
}

// pauseNote begins the note of a schedule that a pause has stopped, so that a resume doesn't start one that was stopped
// for another reason.
const pauseNote = "starter pause: "

// pauseSchedules stops the connection's schedules that run.
func pauseSchedules(ctx context.Context, tc client.Client, l store.Listed, p store.Pause) error {
	return eachSchedule(ctx, tc, l, func(handle client.ScheduleHandle, paused bool, _ string) error {
		if paused {
			return nil
		}
		return handle.Pause(ctx, client.SchedulePauseOptions{Note: pauseNote + sinceBy(p)})
	})
}

// resumeSchedules starts the schedules again that a pause has stopped.
func resumeSchedules(ctx context.Context, tc client.Client, l store.Listed) error {
	return eachSchedule(ctx, tc, l, func(handle client.ScheduleHandle, paused bool, note string) error {
		if !paused || !strings.HasPrefix(note, pauseNote) {
			return nil
		}
		return handle.Unpause(ctx, client.ScheduleUnpauseOptions{Note: "resumed"})
	})
}

// eachSchedule runs fn on the connection's schedules; those that aren't there are passed over.
func eachSchedule(ctx context.Context, tc client.Client, l store.Listed, fn func(handle client.ScheduleHandle, paused bool, note string) error) error {
	for _, id := range []string{workflows.ScheduleID(l.Connection), workflows.ReconcileScheduleID(l.Connection)} {
		handle := tc.ScheduleClient().GetHandle(ctx, id)
		found, err := handle.Describe(ctx)
		if err == nil && found.Schedule.State != nil {
			err = fn(handle, found.Schedule.State.Paused, found.Schedule.State.Note)
		}
		if _, missing := errors.AsType[*serviceerror.NotFound](err); err != nil && !missing {
			return err
		}
	}
	return nil
}

// signalResumed wakes the connection's backfill, where one waits.
func signalResumed(ctx context.Context, tc client.Client, l store.Listed) error {
	err := tc.SignalWorkflow(ctx, workflows.BackfillID(l.Connection), "", workflows.SignalResumed, nil)
	if _, missing := errors.AsType[*serviceerror.NotFound](err); missing {
		return nil
	}
	return err
}
