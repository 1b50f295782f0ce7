package main

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

func reconcileCommand() *cli.Command {
	return &cli.Command{
		Name:      "reconcile",
		Usage:     "compare what the EHR has with what Cura has",
		ArgsUsage: "CONNECTION",
		Description: "Everything of each type is read and compared by id and content. Missing is what only the EHR has, extra what only Cura\n" +
			"has, changed what differs. With --repair what differs is mended: read again, or marked as gone once the EHR says so; that\n" +
			"is also done every night. It ends with code 1 when something differs or couldn't be compared.\n\n" +
			example("starter reconcile st-mary/main", "starter reconcile st-mary/main --types Observation --repair", "starter reconcile st-mary/main --list"),
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "types", Usage: "the resource types to compare: `A,B`", DefaultText: "all of the connection's"},
			&cli.BoolFlag{Name: "repair", Usage: "mend what differs"},
			&cli.BoolFlag{Name: "list", Usage: "list the EHR's ids of what differs; they are PHI"},
		},
		Action: reconcileNow,
	}
}

// reconcileView is what the command prints.
type reconcileView struct {
	workflows.ReconcileResult

	Differences []store.Difference `json:"differences,omitempty"`
}

// maxListed bounds a list of differences: who needs more has another problem.
const maxListed = 1000

func reconcileNow(c *cli.Context) error {
	return onTypes(c, func(s *session, l store.Listed, types []cura.ResourceType) error {
		tc, err := s.starting(c.Context)
		if err != nil {
			return err
		}
		defer tc.Close()
		details := map[string]any{"types": types, "repair": c.Bool("repair"), "list": c.Bool("list")}
		if err := s.record(c.Context, l, "reconcile", audit.Success, details); err != nil {
			return err
		}
		run, err := tc.ExecuteWorkflow(c.Context, client.StartWorkflowOptions{
			ID: workflows.ReconcileID(l.Connection), TaskQueue: workflows.QueueInteractive, StaticSummary: "Comparison of " + path(l) + ", asked for by a person",
			WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
			TypedSearchAttributes: temporal.NewSearchAttributes(
				workflows.AttributeOrg().ValueSet(string(l.Org)), workflows.AttributeConnection().ValueSet(string(l.Connection))),
			WorkflowExecutionErrorWhenAlreadyStarted: true,
		}, workflows.Reconcile, workflows.ReconcileInput{Target: target(l), Types: types, Repair: c.Bool("repair")})
		if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
			return fault.New("comparing", fault.Conflict, "a comparison of "+path(l)+" is under way").WithFix("Wait until it has ended, then try again")
		}
		if err != nil {
			return temporalFault(c.Context, "starting the comparison", err)
		}
		var v reconcileView
		if err := run.Get(c.Context, &v.ReconcileResult); err != nil {
			if c.Err() != nil {
				hint(c, "The comparison goes on without you.")
				return c.Err()
			}
			return ended("the comparison of "+path(l), err)
		}
		if c.Bool("list") {
			err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
				var err error
				v.Differences, err = tx.Differences(c.Context, v.Run, "", maxListed)
				return err
			})
			if err != nil {
				return err
			}
		}
		return printReconciled(c, l, v)
	})
}

func printReconciled(c *cli.Context, l store.Listed, v reconcileView) error {
	if asJSON(c) {
		if err := printJSON(c, v); err != nil {
			return err
		}
		return differs(l, v.ReconcileResult)
	}
	number := func(get func(cura.Reconciliation) int64) func(cura.Reconciliation) string {
		return func(r cura.Reconciliation) string { return strconv.FormatInt(get(r), 10) }
	}
	err := printTable(c, v.Types, "Nothing was compared.",
		column[cura.Reconciliation]{"type", func(r cura.Reconciliation) string { return string(r.Type) }},
		column[cura.Reconciliation]{"source", number(func(r cura.Reconciliation) int64 { return r.Source })},
		column[cura.Reconciliation]{"cura", number(func(r cura.Reconciliation) int64 { return r.Cura })},
		column[cura.Reconciliation]{"missing", number(func(r cura.Reconciliation) int64 { return r.Missing })},
		column[cura.Reconciliation]{"extra", number(func(r cura.Reconciliation) int64 { return r.Extra })},
		column[cura.Reconciliation]{"changed", number(func(r cura.Reconciliation) int64 { return r.Changed })},
		column[cura.Reconciliation]{"unreadable", number(func(r cura.Reconciliation) int64 { return r.Unreadable })},
		column[cura.Reconciliation]{"repaired", number(func(r cura.Reconciliation) int64 { return r.Repaired })})
	if err != nil {
		return err
	}
	for _, d := range v.Differences {
		fmt.Fprintf(c.App.Writer, "%s %s/%s\n", d.Kind, d.Type, d.EHRID)
	}
	for _, e := range v.Ended {
		fmt.Fprintf(c.App.Writer, "\n%s wasn't compared: %s\n", e.Type, e.Details.Detail)
		if e.Details.Fix != "" {
			fmt.Fprintf(c.App.Writer, "    fix: %s\n", e.Details.Fix)
		}
	}
	return differs(l, v.ReconcileResult)
}

// differs is the error of a comparison that isn't clean.
func differs(l store.Listed, r workflows.ReconcileResult) error {
	var n int64
	for _, t := range r.Types {
		n += t.Missing + t.Extra + t.Changed
	}
	switch {
	case n > 0:
		return fault.Newf("comparing", fault.Data, "%d resources differ", n).WithFix("Mend them with: starter reconcile " + path(l) + " --repair")
	case r.Outcome != "complete":
		return fault.New("comparing", fault.Unknown, "not every type could be compared").WithFix("See what waits for a person with: starter attention")
	}
	return nil
}
