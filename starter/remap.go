package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
	"github.com/cura-health/ehr-sync/workflows"
)

// mostSamples is how many resources of a type a dry run keeps for people to look at.
const mostSamples = 20

func remapCommand() *cli.Command {
	return &cli.Command{
		Name:      "remap",
		Usage:     "map again what a connection has brought, with the mapping as it is now",
		ArgsUsage: "CONNECTION",
		Description: "After a change of the mapping or its overrides. What has landed is validated, mapped and stored as if it had just been read;\n" +
			"the EHR isn't asked, and reading goes on meanwhile. Said again, it changes nothing. With --dry-run nothing is written: it\n" +
			"counts what would change, by type and element. With --samples it shows records before and after, which is patient data: who\n" +
			"looked is in the audit log.\n\n" +
			"What can't be mapped any more goes into quarantine, and what was there comes out where it can be mapped now. Rows of types\n" +
			"that the overrides exclude by now are counted, and stay as they are. What the EHR has no more isn't mapped again.\n\n" +
			example("starter remap st-mary/main --dry-run --samples 3", "starter remap st-mary/main --type Observation", "starter remap st-mary/main"),
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "types", Aliases: []string{"type"}, Usage: "the resource types to map: `A,B`", DefaultText: "all that have landed"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show what would change, and write nothing"},
			&cli.IntFlag{Name: "samples", Usage: "with --dry-run, show up to `N` (20) of each type that would change, before and after: patient data"},
		},
		Action: remapNow,
	}
}

// remapView is what remap prints.
type remapView struct {
	workflows.RemapResult

	Samples []sampleView `json:"samples,omitempty"`
}

// sampleView is a resource that would come out otherwise: patient data.
type sampleView struct {
	Type    cura.ResourceType     `json:"type"`
	EHRID   string                `json:"ehr_id"`
	Kind    store.RetakeKind      `json:"kind"`
	Reasons []store.Reason        `json:"reasons,omitempty"`
	Changes []store.ElementChange `json:"changes,omitempty"`
}

func remapNow(c *cli.Context) error {
	dry, samples := c.Bool("dry-run"), c.Int("samples")
	switch {
	case c.IsSet("samples") && !dry:
		return usagef("--samples goes with --dry-run: afterwards there is no before; see: %s --help", c.Command.HelpName)
	case c.IsSet("samples") && (samples < 1 || samples > mostSamples):
		return usagef("--samples is %d; it must be 1 to %d", samples, mostSamples)
	}
	return onTypes(c, func(s *session, l store.Listed, types []cura.ResourceType) error {
		details := map[string]any{"types": types, "dry_run": dry, "samples": samples}
		in := workflows.RemapInput{Target: target(l), Types: types, DryRun: dry}
		result, err := s.remap(c, l, workflows.RemapID(l.Connection), "remap", "Mapping again of "+path(l)+", asked for by a person", in, details)
		if err != nil {
			return err
		}
		v := remapView{RemapResult: result}
		if samples > 0 {
			if v.Samples, err = s.samples(c.Context, l, result.Run, samples); err != nil {
				return err
			}
		}
		return printRemapped(c, l, v)
	})
}

// remap starts the workflow, shows how far it is, and gives its result.
func (s *session) remap(c *cli.Context, l store.Listed, id, command, summary string, in workflows.RemapInput, details map[string]any) (workflows.RemapResult, error) {
	var result workflows.RemapResult
	tc, err := s.starting(c.Context)
	if err != nil {
		return result, err
	}
	defer tc.Close()
	if err := s.record(c.Context, l, command, audit.Success, details); err != nil {
		return result, err
	}
	run, err := startRemap(c.Context, tc, l, id, summary, in)
	if err != nil {
		return result, err
	}
	done := make(chan error, 1)
	go func() { done <- run.Get(c.Context, &result) }()
	show := newProgress(c.App.ErrWriter)
	defer show.stop()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for began := time.Now(); ; {
		select {
		case err := <-done:
			switch {
			case c.Err() != nil:
				hint(c, "The mapping goes on without you.")
				return result, c.Err()
			case err != nil:
				return result, ended("the mapping of "+path(l), err)
			}
			return result, nil
		case <-ticker.C:
		}
		if err := s.showRemap(c.Context, l, run.GetRunID(), show, began); err != nil && c.Err() == nil {
			return result, err
		}
	}
}

func (s *session) showRemap(ctx context.Context, l store.Listed, run string, show progressView, began time.Time) error {
	return s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		begun, types, err := tx.RemapProgress(ctx, run)
		if err != nil {
			return err
		}
		if !begun && time.Since(began) > idle {
			show.note("No worker has begun within 10 s. Start one, or press Ctrl-C: it stays queued.")
		}
		for _, t := range types {
			show.show(progressItem{key: string(t.Type), state: map[bool]string{true: "done", false: "running"}[t.Done], value: int64(t.All())})
		}
		return nil
	})
}

// startRemap starts the workflow; one of that id that is under way is a conflict.
func startRemap(ctx context.Context, tc client.Client, l store.Listed, id, summary string, in workflows.RemapInput) (client.WorkflowRun, error) {
	run, err := tc.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: workflows.QueueInteractive, StaticSummary: summary,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.AttributeOrg().ValueSet(string(l.Org)), workflows.AttributeConnection().ValueSet(string(l.Connection))),
		WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.Remap, in)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return nil, fault.New("mapping again", fault.Conflict, "one of "+path(l)+" is under way").WithFix("Wait until it has ended, then try again")
	}
	if err != nil {
		return nil, temporalFault(ctx, "starting the mapping", err)
	}
	return run, nil
}

// applyDecisions starts what applies the decided reviews of a connection, and what waits for them. It doesn't wait for the end.
func applyDecisions(c *cli.Context, s *session, l store.Listed) error {
	tc, err := s.starting(c.Context)
	if err != nil {
		return err
	}
	defer tc.Close()
	_, err = startRemap(c.Context, tc, l, workflows.DecisionsID(l.Connection, cura.NewRunID()), "Decisions about patients of "+path(l),
		workflows.RemapInput{Target: target(l), Selection: activities.Selection{Only: activities.RetakeDecided}})
	return err
}

// samples reads what a dry run has kept to look at, and maps it once more. Who looks is recorded first.
func (s *session) samples(ctx context.Context, l store.Listed, run string, limit int) ([]sampleView, error) {
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		tx.Audit(audit.Record{
			Kind: audit.RemapViewed, Actor: s.actor, Connection: l.Connection, Run: run, Outcome: audit.Success,
			Details: map[string]any{"samples": limit},
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	var kept []store.RemapSample
	var overrides *mappings.Overrides
	err = s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		if kept, err = tx.RemapSamples(ctx, l.Connection, run, limit); err != nil {
			return err
		}
		conn, err := tx.Connection(ctx, l.Connection)
		if err != nil || conn.Overrides == 0 {
			return err
		}
		file, err := tx.MappingOverrides(ctx, l.Connection, conn.Overrides)
		if err != nil {
			return err
		}
		overrides, err = mappings.ParseOverrides("overrides", []byte(file.Text))
		return err
	})
	if err != nil {
		return nil, err
	}
	views := make([]sampleView, 0, len(kept))
	for _, k := range kept {
		v, err := viewSample(k, overrides)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	return views, nil
}

func viewSample(k store.RemapSample, overrides *mappings.Overrides) (sampleView, error) {
	v := sampleView{Type: k.Type, EHRID: k.Landed.Item.EHRID, Kind: k.Kind, Reasons: k.Reasons}
	if k.Kind == store.RetakeRejected || k.Landed.Item.Raw == nil {
		return v, nil
	}
	record, err := mappings.MapWith(k.Landed.Item.Raw, overrides)
	if err != nil {
		return v, fault.Wrap("mapping a sample", fault.Unknown, "it can't be mapped any more", err).WithFix("Make the dry run again")
	}
	after, err := store.RecordJSON(record)
	if err != nil {
		return v, err
	}
	before := []byte("{}")
	if k.Landed.Row != nil {
		before = k.Landed.Row.Record
	}
	v.Changes, err = store.RecordChanges(k.Type, before, after)
	return v, err
}

func printRemapped(c *cli.Context, l store.Listed, v remapView) error {
	if asJSON(c) {
		if err := printJSON(c, v); err != nil {
			return err
		}
		return remapLeft(v.RemapResult)
	}
	number := func(get func(store.RetakeCounts) int) func(activities.Retaken) string {
		return func(r activities.Retaken) string { return strconv.Itoa(get(r.RetakeCounts)) }
	}
	err := printTable(c, v.Types, "Nothing has landed that could be mapped again.",
		column[activities.Retaken]{"type", func(r activities.Retaken) string { return string(r.Type) }},
		column[activities.Retaken]{"same", number(func(n store.RetakeCounts) int { return n.Same })},
		column[activities.Retaken]{"changed", number(func(n store.RetakeCounts) int { return n.Changed })},
		column[activities.Retaken]{"rejected", number(func(n store.RetakeCounts) int { return n.Rejected })},
		column[activities.Retaken]{"accepted", number(func(n store.RetakeCounts) int { return n.Accepted })},
		column[activities.Retaken]{"in review", number(func(n store.RetakeCounts) int { return n.InReview })},
		column[activities.Retaken]{"excluded", number(func(n store.RetakeCounts) int { return n.Excluded })},
		column[activities.Retaken]{"withheld", number(func(n store.RetakeCounts) int { return n.Withheld })},
		column[activities.Retaken]{"skipped", number(func(n store.RetakeCounts) int { return n.Skipped })})
	if err != nil {
		return err
	}
	printNames(c, "Elements that differ", v.Types, func(r activities.Retaken) map[string]int { return r.Elements })
	printNames(c, "Why resources can't be mapped", v.Types, func(r activities.Retaken) map[string]int { return r.Reasons })
	for _, s := range v.Samples {
		fmt.Fprintf(c.App.Writer, "\n%s/%s: %s\n", s.Type, s.EHRID, s.Kind)
		for _, r := range s.Reasons {
			fmt.Fprintf(c.App.Writer, "  %s: %s\n", r.Path, r.Text)
		}
		for _, e := range s.Changes {
			fmt.Fprintf(c.App.Writer, "  %s: %s -> %s\n", e.Path, orDash(e.Before), orDash(e.After))
		}
	}
	if v.DryRun {
		fmt.Fprintf(c.App.Writer, "\nNothing was written. Apply it with: starter remap %s\n", path(l))
	}
	for _, e := range v.Ended {
		fmt.Fprintf(c.App.Writer, "\n%s wasn't mapped: %s\n", e.Type, e.Details.Detail)
		if e.Details.Fix != "" {
			fmt.Fprintf(c.App.Writer, "    fix: %s\n", e.Details.Fix)
		}
	}
	return remapLeft(v.RemapResult)
}

// printNames prints counted names, the most frequent first.
func printNames(c *cli.Context, heading string, types []activities.Retaken, of func(activities.Retaken) map[string]int) {
	all := map[string]int{}
	for _, t := range types {
		maps.Copy(all, of(t))
	}
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(c.App.Writer, "\n%s:\n", heading)
	for _, name := range slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Or(all[b]-all[a], cmp.Compare(a, b)) }) {
		fmt.Fprintf(c.App.Writer, "  %6d  %s\n", all[name], name)
	}
}

// remapLeft is the error of a run that has left something.
func remapLeft(r workflows.RemapResult) error {
	if r.Outcome == "complete" {
		return nil
	}
	return fault.New("mapping again", fault.Unknown, "not every type came to its end; what was mapped stays").
		WithFix("Do what the fixes above say, then map again: what is done already stays as it is")
}
