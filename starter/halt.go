package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.temporal.io/sdk/client"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

func haltCommand() *cli.Command {
	return &cli.Command{
		Name:      "halt",
		Usage:     "stop all pushes or pulls of an org, of a connection, or everywhere",
		ArgsUsage: "pushes|pulls",
		Description: "A kill switch: it stands until somebody lifts it with starter unhalt. Of pushes it ends when nothing more can be on the\n" +
			"wire. It works while Temporal is down. It takes ops, a consent officer or an admin.\n\n" +
			example("starter halt pushes --org st-mary --reason \"wrong patients are linked\"", "starter halt pulls --connection st-mary/main", "starter halt pushes --all"),
		Flags: append(reachFlags(), &cli.StringFlag{Name: "reason", Usage: "`WHY`, without any patient's data: it is kept in the audit log"}),
		Action: func(c *cli.Context) error {
			if reason := c.String("reason"); len(reason) > 500 || strings.ContainsAny(reason, "\r\n") {
				return usagef("--reason must be at most 500 bytes on one line; say it in a sentence")
			}
			return onReach(c, demand{kind: audit.HaltSet, roles: []cura.Role{cura.RoleOps, cura.RoleConsentOfficer}}, setHalts)
		},
	}
}

func unhaltCommand() *cli.Command {
	return &cli.Command{
		Name:      "unhalt",
		Usage:     "lift a kill switch",
		ArgsUsage: "pushes|pulls",
		Description: "That of an org and those of its connections are lifted by themselves. It takes ops or an admin.\n\n" +
			example("starter unhalt pushes --org st-mary", "starter unhalt pulls --connection st-mary/main"),
		Flags: reachFlags(),
		Action: func(c *cli.Context) error {
			return onReach(c, demand{kind: audit.HaltLifted, roles: []cura.Role{cura.RoleOps}}, liftHalts)
		},
	}
}

func reachFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "org", Usage: "of all connections of this `ORG`"},
		&cli.StringFlag{Name: "connection", Usage: "of this `CONNECTION`"},
		&cli.BoolFlag{Name: "all", Usage: "of every org"},
	}
}

// reach is one kill switch's: an org, or one connection of it.
type reach struct {
	org        store.Org
	connection cura.ConnectionID
	// name is the org's, or ORG/NAME.
	name string
}

// flags are what says the reach on a command line.
func (r reach) flags() string {
	if r.connection != "" {
		return "--connection " + r.name
	}
	return "--org " + r.name
}

// onReach runs fn on what the command line says is to be stopped, or to go on, as far as the person may. What they may not, or
// what fails in one org, doesn't keep the others from being stopped.
func onReach(c *cli.Context, d demand, fn func(c *cli.Context, s *session, what string, reaches []reach) error) error {
	what, err := oneWord(c, "what: pushes or pulls")
	if err != nil {
		return err
	}
	if what != store.HaltPushes && what != store.HaltPulls {
		return usagef("%q can't be halted; pushes and pulls can", what)
	}
	given := 0
	for _, flag := range []string{"org", "connection", "all"} {
		if c.IsSet(flag) {
			given++
		}
	}
	if given != 1 {
		return usagef("say one of --org ORG, --connection CONNECTION and --all")
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	all, err := s.reaches(c)
	if err != nil {
		return err
	}
	var allowed []reach
	var refused error
	for _, r := range all {
		d.connection = r.connection
		if _, err := s.leave(c, r.org, d); err != nil {
			refused = errors.Join(refused, errors.New(explain(err)))
			continue
		}
		allowed = append(allowed, r)
	}
	if len(allowed) > 0 || refused == nil {
		if err := fn(c, s, what, allowed); err != nil {
			return errors.Join(err, refused)
		}
	}
	return refused
}

func (s *session) reaches(c *cli.Context) ([]reach, error) {
	switch {
	case c.IsSet("org"):
		org, err := s.store.OrgByName(c.Context, c.String("org"))
		return []reach{{org: org, name: org.Name}}, err
	case c.IsSet("connection"):
		l, err := s.store.FindConnection(c.Context, c.String("connection"))
		return []reach{{orgOf(l), l.Connection, path(l)}}, err
	case !c.Bool("all"):
		return nil, usagef("--all=false names nothing; say --org ORG or --connection CONNECTION")
	}
	orgs, err := s.store.Orgs(c.Context)
	reaches := make([]reach, len(orgs))
	for i, org := range orgs {
		reaches[i] = reach{org: org, name: org.Name}
	}
	return reaches, err
}

// haltResult is what became of one kill switch.
type haltResult struct {
	Org        string `json:"org"`
	Connection string `json:"connection,omitempty"`
	What       string `json:"what"`
	// Changed is false where it was so already.
	Changed bool `json:"changed"`
	// SetAt is when it was set, EffectiveAt the database's clock once nothing more could be on the wire.
	SetAt       *time.Time `json:"set_at,omitempty"`
	EffectiveAt *time.Time `json:"effective_at,omitempty"`

	reach reach
}

func resultFor(what string, r reach) haltResult {
	result := haltResult{Org: r.org.Name, What: what, reach: r}
	if r.connection != "" {
		result.Connection = r.name
	}
	return result
}

// setHalts sets the switches, all of them first, and then waits until they are effective.
func setHalts(c *cli.Context, s *session, what string, reaches []reach) error {
	var results []haltResult
	var failed error
	for _, r := range reaches {
		result := resultFor(what, r)
		err := s.store.InOrg(c.Context, r.org.ID, func(tx *store.Tx) error {
			var err error
			h := store.Halt{Connection: r.connection, What: what, Actor: s.actor, Reason: c.String("reason")}
			if result.Changed, err = tx.SetHalt(c.Context, h); err != nil {
				return err
			}
			standing, err := tx.Halts(c.Context)
			for _, h := range standing {
				if h.What == what && h.Connection == r.connection {
					result.SetAt = &h.Since
				}
			}
			return errors.Join(err, s.refreshAttention(c.Context, tx, r))
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("halting %s of %s: %s", what, r.name, explain(err)))
			continue
		}
		results = append(results, result)
	}
	for i := range results {
		at, err := s.awaitNoSends(c.Context, what, results[i].reach)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s of %s are halted, but what is on its way isn't known to have ended: %s", what, results[i].reach.name, explain(err)))
			continue
		}
		results[i].EffectiveAt = &at
	}
	return errors.Join(printHalts(c, results, func(r haltResult) string {
		if !r.Changed {
			return "halted already"
		}
		return "halted"
	}), failed)
}

// awaitNoSends waits until no disclosure of an org, or of a connection, can put bytes on the wire; pulls end at their next page.
func (s *session) awaitNoSends(ctx context.Context, what string, r reach) (at time.Time, err error) {
	const poll = 20 * time.Millisecond
	for {
		n := 0
		err := s.store.InOrg(ctx, r.org.ID, func(tx *store.Tx) error {
			if what == store.HaltPushes {
				if n, _, err = tx.InFlight(ctx, r.connection); err != nil {
					return err
				}
			}
			at, err = tx.Clock(ctx)
			return err
		})
		if err != nil || n == 0 {
			return at, err
		}
		select {
		case <-ctx.Done():
			return at, ctx.Err()
		case <-time.After(poll):
		}
	}
}

// refreshAttention brings the directory's flags in step with a switch: a connection that is halted waits for a person.
func (s *session) refreshAttention(ctx context.Context, tx *store.Tx, r reach) error {
	all, err := s.store.Connections(ctx)
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.Org == r.org.ID && (r.connection == "" || l.Connection == r.connection) {
			if err := tx.RefreshAttention(ctx, l.Connection); err != nil {
				return err
			}
		}
	}
	return nil
}

func liftHalts(c *cli.Context, s *session, what string, reaches []reach) error {
	var results []haltResult
	var failed error
	for _, r := range reaches {
		result := resultFor(what, r)
		err := s.store.InOrg(c.Context, r.org.ID, func(tx *store.Tx) error {
			var err error
			if result.Changed, err = tx.LiftHalt(c.Context, r.connection, what, s.actor); err != nil {
				return err
			}
			return s.refreshAttention(c.Context, tx, r)
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("lifting the halt of %s: %s", r.name, explain(err)))
			continue
		}
		results = append(results, result)
	}
	if what == store.HaltPulls {
		s.wakeBackfills(c.Context, results)
	}
	return errors.Join(printHalts(c, results, func(r haltResult) string {
		if !r.Changed {
			return "no such switch stands"
		}
		return "lifted"
	}), failed)
}

// wakeBackfills wakes what waits for the switch to be lifted; what isn't reached looks again by itself.
func (s *session) wakeBackfills(ctx context.Context, results []haltResult) {
	ctx, cancel := context.WithTimeout(ctx, signalTimeout)
	defer cancel()
	all, err := s.store.Connections(ctx)
	if err != nil {
		return
	}
	_ = s.withTemporal(ctx, func(tc client.Client) error {
		for _, l := range all {
			for _, r := range results {
				if l.Org != r.reach.org.ID || r.reach.connection != "" && r.reach.connection != l.Connection {
					continue
				}
				if err := signalResumed(ctx, tc, l); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// printHalts prints what became of the switches; did says that of each in a word or two.
func printHalts(c *cli.Context, results []haltResult, did func(haltResult) string) error {
	if asJSON(c) {
		return printJSON(c, append([]haltResult{}, results...))
	}
	for _, r := range results {
		line := r.What + " of " + r.reach.name + ": " + did(r)
		if r.SetAt != nil {
			line += ", set at " + when(r.SetAt) + ", effective at " + when(r.EffectiveAt) + "\n    starter unhalt " + r.What + " " + r.reach.flags()
		}
		if _, err := fmt.Fprintln(c.App.Writer, line); err != nil {
			return err
		}
	}
	return nil
}

// haltText says since when something is halted, by whom and why.
func haltText(h store.Halt) string {
	return h.What + " " + sinceBy(store.Pause{Since: h.Since, By: h.Actor, Reason: h.Reason})
}

// haltOf is a kill switch that concerns a connection, and how it is lifted.
type haltOf struct {
	store.Halt

	// Lift is the command that lifts it.
	Lift string `json:"lift"`
}

// haltsOf are the kill switches that stand for a connection.
func haltsOf(ctx context.Context, tx *store.Tx, l store.Listed) ([]haltOf, error) {
	all, err := tx.Halts(ctx)
	if err != nil {
		return nil, err
	}
	var halts []haltOf
	for _, h := range all {
		switch h.Connection {
		case "":
			halts = append(halts, haltOf{h, "starter unhalt " + h.What + " --org " + l.OrgName})
		case l.Connection:
			halts = append(halts, haltOf{h, "starter unhalt " + h.What + " --connection " + path(l)})
		}
	}
	return halts, nil
}

// pullsHalted fails where a kill switch keeps a connection from being read.
func (s *session) pullsHalted(ctx context.Context, l store.Listed) error {
	return s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		halts, err := haltsOf(ctx, tx, l)
		for _, h := range halts {
			if h.What == store.HaltPulls {
				return fault.Newf("syncing", fault.Paused, "%s reads nothing: %s", path(l), haltText(h.Halt)).WithFix("Lift it with: " + h.Lift)
			}
		}
		return err
	})
}
