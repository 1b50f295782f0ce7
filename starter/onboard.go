package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/temporalclient"
	"github.com/cura-health/ehr-sync/workflows"
)

func onboardCommand() *cli.Command {
	return &cli.Command{
		Name:      "onboard",
		Usage:     "take a connection from its endpoint test to live",
		ArgsUsage: "CONNECTION",
		Description: "Endpoint test, pilot, backfill, schedule, monitoring window, live. A step that fails waits for a person and says\n" +
			"which command moves it on. With --watch it ends with code 0 once the connection is live, 1 when it was aborted, and\n" +
			"3 when it waits for a person.\n\n" +
			example("starter onboard st-mary/main --watch", "starter onboard st-mary/main --patients ./patients.txt --require-approval"),
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "pilot", Value: 10, Usage: "how many `PATIENTS` are piloted"},
			&cli.StringFlag{Name: "patients", Usage: "pilot the patients in `FILE`: one EHR patient id a line, # begins a comment; - is standard input"},
			&cli.Float64Flag{Name: "pilot-threshold", Value: 0.2, Usage: "the `SHARE` of pilot patients that may need a person"},
			&cli.BoolFlag{Name: "require-approval", Usage: "wait for approval between pilot and backfill"},
			&cli.DurationFlag{Name: "interval", Value: 5 * time.Minute, Usage: "the `TIME` between scheduled syncs"},
			&cli.DurationFlag{Name: "monitor", Value: 72 * time.Hour, Usage: "the length of the monitoring `WINDOW`"},
			&cli.IntFlag{Name: "max-failed-syncs", Value: 2, Usage: "how many syncs in a row may end incomplete"},
			&cli.Float64Flag{Name: "max-quarantine-rate", Value: 0.05, Usage: "the `SHARE` of new versions that may be quarantined"},
			&cli.DurationFlag{Name: "max-lag", Usage: "how long ago the last complete sync may have ended", DefaultText: "four intervals"},
			&cli.IntFlag{Name: "max-auth-failures", Usage: "how many syncs may be refused for their credentials"},
			&cli.BoolFlag{Name: "watch", Usage: "follow it until it is live or needs a person"},
		},
		Action: onboard,
	}
}

func onboard(c *cli.Context) error {
	in, err := onboardingInput(c)
	if err != nil {
		return err
	}
	var patients []string
	if c.IsSet("patients") {
		if patients, err = patientIDs(c, c.String("patients")); err != nil {
			return err
		}
		if in.Pilot = len(patients); in.Pilot > maxPilot {
			return usagef("%d patients are more than the %d that a pilot reads; leave some out", in.Pilot, maxPilot)
		}
	}
	return onConnection(c, func(s *session, l store.Listed) error {
		if _, err := s.inService(c.Context, l); err != nil {
			return err
		}
		tc, err := s.temporal(c.Context)
		if err != nil {
			return err
		}
		defer tc.Close()
		in.Target = target(l)
		id, err := s.startOnboarding(c.Context, tc, l, in, patients)
		if err != nil {
			return err
		}
		if c.Bool("watch") {
			return s.watchToEnd(c, tc, l)
		}
		hint(c, "Watch it with: starter status %s --watch", path(l))
		return printOne(c, map[string]string{"workflow_id": id, "org": l.OrgName, "name": l.Name},
			"The onboarding of "+path(l)+" has begun, as workflow "+id+".")
	})
}

// maxPilot is how many patients a pilot reads at most; it is looked at by a person.
const maxPilot = 1000

// nothing is a share that nothing stays below: 0 itself stands for the default.
const nothing = 1e-9

// onboardingInput reads the flags and checks them.
func onboardingInput(c *cli.Context) (workflows.OnboardingInput, error) {
	in := workflows.OnboardingInput{
		Pilot: c.Int("pilot"), PilotThreshold: max(c.Float64("pilot-threshold"), nothing), RequireApproval: c.Bool("require-approval"),
		Interval: c.Duration("interval"), Monitor: c.Duration("monitor"),
		Thresholds: cura.Thresholds{
			FailedSyncs: c.Int("max-failed-syncs"), QuarantineRate: max(c.Float64("max-quarantine-rate"), nothing),
			Lag: c.Duration("max-lag"), AuthFailures: c.Int("max-auth-failures"),
		},
	}
	switch {
	case in.Pilot < 1 || in.Pilot > maxPilot:
		return in, usagef("--pilot is %d; it must be 1 to %d", in.Pilot, maxPilot)
	case c.IsSet("patients") && c.IsSet("pilot"):
		return in, usagef("--patients names the pilot's patients, so --pilot has nothing to say; give one of the two")
	case c.Float64("pilot-threshold") < 0 || in.PilotThreshold > 1:
		return in, usagef("--pilot-threshold is %g; it must be 0 to 1", c.Float64("pilot-threshold"))
	case c.Float64("max-quarantine-rate") < 0 || in.Thresholds.QuarantineRate > 1:
		return in, usagef("--max-quarantine-rate is %g; it must be 0 to 1", c.Float64("max-quarantine-rate"))
	case in.Interval < time.Second:
		return in, usagef("--interval is %s; it must be at least 1s", in.Interval)
	case in.Monitor < in.Interval:
		return in, usagef("--monitor is %s and --interval %s; a window must be long enough for a sync", in.Monitor, in.Interval)
	case in.Thresholds.FailedSyncs < 1:
		return in, usagef("--max-failed-syncs is %d; it must be at least 1", in.Thresholds.FailedSyncs)
	case in.Thresholds.Lag < 0 || (c.IsSet("max-lag") && in.Thresholds.Lag < in.Interval):
		return in, usagef("--max-lag is %s; it must be at least the interval, %s", in.Thresholds.Lag, in.Interval)
	case in.Thresholds.AuthFailures < 0:
		return in, usagef("--max-auth-failures is %d; it must not be negative", in.Thresholds.AuthFailures)
	}
	return in, nil
}

// startOnboarding keeps the patients that were chosen, none for the first that the EHR serves, and starts the workflow.
// It gives the workflow's id, and fault.Conflict while an onboarding of the connection is running.
func (s *session) startOnboarding(ctx context.Context, tc *temporalclient.Client, l store.Listed, in workflows.OnboardingInput, patients []string) (string, error) {
	conflict := fault.Newf("starting the onboarding", fault.Conflict, "an onboarding of %s is running", path(l)).
		WithFix("See where it stands with: starter status " + path(l))
	if err := tc.EnsureSearchAttributes(ctx, workflows.SearchAttributes()); err != nil {
		return "", err
	}
	running, err := onboardingRuns(ctx, tc, l.Connection)
	if err != nil {
		return "", err
	}
	if running {
		return "", conflict
	}
	// The ids of patients stay in the database: nothing of them goes to Temporal.
	err = s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		tx.Audit(audit.Record{
			Kind: audit.OperatorCommand, Actor: s.actor, Connection: l.Connection, Outcome: audit.Success,
			Details: map[string]any{"command": "onboard"},
		})
		return tx.PutPilotChoices(ctx, l.Connection, patients, s.actor)
	})
	if err != nil {
		return "", err
	}
	id := workflows.OnboardingID(l.Connection)
	_, err = tc.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: workflows.QueueInteractive,
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            "Onboarding of " + path(l),
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.AttributeOrg().ValueSet(string(l.Org)),
			workflows.AttributeConnection().ValueSet(string(l.Connection)),
			workflows.AttributePhase().ValueSet(string(cura.PhaseTesting)),
			workflows.AttributeHealth().ValueSet(string(cura.HealthOK)),
			workflows.AttributeWaitsFor().ValueSet(string(cura.WaitsForNobody)),
		),
	}, workflows.Onboarding, in)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	switch {
	case errors.As(err, &started):
		return "", conflict
	case err != nil:
		return "", temporalFault(ctx, "starting the onboarding", err)
	}
	return id, nil
}

// watchToEnd follows an onboarding on the screen, and ends as it does.
func (s *session) watchToEnd(c *cli.Context, tc client.Client, l store.Listed) error {
	show := newProgress(c.App.ErrWriter)
	status, err := watchOnboarding(c.Context, s, tc, l, func(status workflows.OnboardingStatus) { showOnboarding(show, status) })
	show.stop()
	if err != nil {
		if c.Err() != nil {
			hint(c, "The onboarding goes on without you; see: starter status %s --watch", path(l))
		}
		return err
	}
	status.Commands = typed(status.Commands, l)
	if asJSON(c) {
		if err := printJSON(c, status); err != nil {
			return err
		}
	}
	switch status.Phase { //nolint:exhaustive // in every other phase it waits
	case cura.PhaseAborted:
		return fault.Newf("onboarding", fault.Conflict, "the onboarding of %s was aborted", path(l)).
			WithFix("Begin it again with: starter onboard " + path(l))
	case cura.PhaseLive:
		if asJSON(c) {
			return nil
		}
		_, err := fmt.Fprintln(c.App.Writer, path(l)+" is live.")
		return err
	}
	lines := []string{"The onboarding of " + path(l) + " waits for a person.", indented(status.Why)}
	for _, command := range status.Commands {
		lines = append(lines, "    "+command)
	}
	return &waitingError{text: strings.Join(lines, "\n")}
}

// showOnboarding puts a status on the screen: a line for each step, and one for each type that the backfill reads.
func showOnboarding(show progressView, status workflows.OnboardingStatus) {
	if len(status.Steps) == 0 {
		show.note("No worker answers yet; the database has it at phase " + string(status.Phase) + ".")
		return
	}
	show.note("")
	for _, step := range status.Steps {
		item := progressItem{key: step.Name, text: step.Text, state: step.State}
		if step.Name == string(cura.PhaseMonitoring) && !status.Window.Ends.IsZero() {
			whole := status.Window.Ends.Sub(status.Window.Began)
			item.total = int64(whole.Seconds())
			item.value = min(int64(time.Since(status.Window.Began).Seconds()), item.total)
		}
		if step.State != "pending" {
			show.show(item)
		}
		if step.Name == string(cura.PhaseBackfill) && step.State != "pending" {
			for _, t := range cura.ResourceTypes() {
				if counts, ok := status.Backfill.Counts[t]; ok {
					show.show(progressItem{key: "backfill " + string(t), state: step.State, value: int64(counts.Served)})
				}
			}
		}
	}
}
