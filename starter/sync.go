package main

import (
	"context"
	"fmt"
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
	"github.com/cura-health/ehr-sync/workflows"
)

func syncCommand() *cli.Command {
	return &cli.Command{
		Name:      "sync",
		Usage:     "read now what has changed at a connection's EHR",
		ArgsUsage: "CONNECTION",
		Description: "Types that are switched off are tried again. It waits for the end, and ends with code 1 when a type didn't come to\n" +
			"its end. A sync that was asked for before and still runs is joined.\n\n" +
			"With --since or --until it reads a range again, by when the EHR has changed things; the watermarks stay. With --patient\n" +
			"or --patients it reads these patients at once: a backfill under way steps aside. They are named by Cura's ids of them or\n" +
			"by the EHR's, which stay on this machine and in the database; what is typed here can be seen by others on this machine,\n" +
			"a file or standard input can't.\n\n" +
			example("starter sync st-mary/main", "starter sync st-mary/main --types Observation,Encounter --watch",
				"starter sync st-mary/main --since 2026-03-01 --until 2026-03-08", "starter sync st-mary/main --patients ./ids.txt"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "read again what has changed since this `TIME`: 2026-03-01, 2026-03-01T08:00:00Z, or 36h ago"},
			&cli.StringFlag{Name: "until", Usage: "… and before this `TIME`"},
			&cli.StringSliceFlag{Name: "patient", Usage: "read this patient, named by an `ID`; repeated as needed"},
			&cli.StringFlag{Name: "patients", Usage: "read the patients in a `FILE`, an id a line; - reads standard input"},
			&cli.StringSliceFlag{Name: "types", Usage: "the resource types to read: `A,B`", DefaultText: "all of the connection's"},
			&cli.BoolFlag{Name: "watch", Usage: "show how far it is"},
			&cli.BoolFlag{Name: "no-wait", Usage: "start it and end"},
		},
		Action: syncNow,
	}
}

func syncNow(c *cli.Context) error {
	asked, err := readSelection(c)
	if err != nil {
		return err
	}
	return onTypes(c, func(s *session, l store.Listed, types []cura.ResourceType) error {
		if err := s.pullsHalted(c.Context, l); err != nil {
			return err
		}
		in := workflows.SyncInput{Target: target(l), Types: types, Since: asked.since, Until: asked.until}
		if in.Patients, err = s.patients(c.Context, l, asked.patients); err != nil {
			return err
		}
		in.Ahead = len(in.Patients) > 0
		tc, err := s.starting(c.Context)
		if err != nil {
			return err
		}
		defer tc.Close()
		details := map[string]any{"types": types, "since": in.Since, "until": in.Until, "patients": len(in.Patients)}
		if err := s.record(c.Context, l, "sync", audit.Success, details); err != nil {
			return err
		}
		run, err := startSync(c.Context, tc, l, syncID(l, in), "Sync of "+path(l)+", asked for by a person", in)
		if err != nil {
			return err
		}
		if c.Bool("no-wait") {
			return printOne(c, map[string]string{"workflow_id": run.GetID(), "run": run.GetRunID()}, "The sync of "+path(l)+" has begun, as workflow "+run.GetID()+".")
		}
		result, err := s.awaitSync(c, l, run, c.Bool("watch"))
		if err != nil {
			return err
		}
		return printResult(c, l, result)
	})
}

// startSync starts an incremental sync, or joins the one of that id that is running.
func startSync(ctx context.Context, tc client.Client, l store.Listed, id, summary string, in workflows.SyncInput) (client.WorkflowRun, error) {
	run, err := tc.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: workflows.QueueInteractive, StaticSummary: summary,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.AttributeOrg().ValueSet(string(l.Org)), workflows.AttributeConnection().ValueSet(string(l.Connection))),
	}, workflows.IncrementalSync, in)
	if err != nil {
		return nil, temporalFault(ctx, "starting the sync", err)
	}
	return run, nil
}

// idle is how long a run may stay untouched before the person is told that a worker is missing.
const idle = 10 * time.Second

// awaitSync waits for the end of a sync. With watch it shows how far each type is.
func (s *session) awaitSync(c *cli.Context, l store.Listed, run client.WorkflowRun, watch bool) (workflows.ReadResult, error) {
	var show progressView = &changes{w: c.App.ErrWriter, last: map[string]string{}}
	if watch {
		show = newProgress(c.App.ErrWriter)
	}
	defer show.stop()
	type outcome struct {
		result workflows.ReadResult
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.err = run.Get(c.Context, &o.result)
		done <- o
	}()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	began := time.Now()
	for {
		select {
		case o := <-done:
			switch {
			case c.Err() != nil:
				hint(c, "The sync goes on without you.")
				return o.result, c.Err()
			case o.err != nil:
				return o.result, ended("the sync of "+path(l), o.err)
			}
			return o.result, nil
		case <-ticker.C:
		}
		begun, counts, err := s.runProgress(c.Context, l, run.GetRunID())
		switch {
		case err != nil && c.Err() == nil:
			return workflows.ReadResult{}, err
		case err == nil && !begun && time.Since(began) > idle:
			show.note("No worker has begun the sync within 10 s. Start one, or press Ctrl-C: it stays queued.")
		case watch:
			for _, t := range cura.ResourceTypes() {
				if n, ok := counts[t]; ok {
					show.show(progressItem{key: string(t), state: map[bool]string{true: "done", false: "running"}[n.Done], value: int64(n.Served)})
				}
			}
		}
	}
}

// runProgress reads whether a run has begun, and its counts so far.
func (s *session) runProgress(ctx context.Context, l store.Listed, run string) (begun bool, counts map[cura.ResourceType]store.TypeCounts, err error) {
	err = s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		runs, err := tx.Runs(ctx, l.Connection, time.Time{}, recentRuns)
		if err != nil {
			return err
		}
		for _, r := range runs {
			begun = begun || r.ID == run
		}
		counts, err = tx.RunCounts(ctx, run)
		return err
	})
	return begun, counts, err
}

// typeResult is what a run read of one type, and why it stopped where it didn't come to its end.
type typeResult struct {
	Type cura.ResourceType
	cura.Counts
	ended *activities.Details
}

func (r typeResult) end() string {
	if r.ended == nil {
		return "complete"
	}
	return string(r.ended.Kind)
}

// printResult prints the counts of a run by type, and why types didn't come to their end.
func printResult(c *cli.Context, l store.Listed, result workflows.ReadResult) error {
	if asJSON(c) {
		if err := printJSON(c, result); err != nil {
			return err
		}
		return incomplete(l, result)
	}
	ends := map[cura.ResourceType]*activities.Details{}
	for _, e := range result.Ended {
		ends[e.Type] = &e.Details
	}
	var rows []typeResult
	for _, t := range cura.ResourceTypes() {
		counts, read := result.Counts[t]
		if read || ends[t] != nil {
			rows = append(rows, typeResult{t, counts, ends[t]})
		}
	}
	columns := append([]column[typeResult]{{"type", func(r typeResult) string { return string(r.Type) }}},
		countColumns(func(r typeResult) cura.Counts { return r.Counts })...)
	if err := printTable(c, rows, "Nothing was read.", append(columns, column[typeResult]{"end", typeResult.end})...); err != nil {
		return err
	}
	for _, e := range result.Ended {
		fmt.Fprintf(c.App.Writer, "\n%s: %s\n", e.Type, e.Details.Detail)
		if e.Details.Fix != "" {
			fmt.Fprintf(c.App.Writer, "    fix: %s\n", e.Details.Fix)
		}
	}
	return incomplete(l, result)
}

// incomplete is the error of a run that has left something unread.
func incomplete(l store.Listed, result workflows.ReadResult) error {
	if result.Outcome == "complete" {
		return nil
	}
	return fault.New("syncing", fault.Unknown, "the run is "+result.Outcome+"; nothing is lost: the next one reads on from where each type stands").
		WithFix("See what waits for a person with: starter attention; then: starter sync " + path(l))
}
