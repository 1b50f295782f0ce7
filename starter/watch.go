package main

import (
	"context"
	"errors"
	"reflect"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

const (
	// watchEvery is how often a watcher looks.
	watchEvery = time.Second
	// askTimeout is how long a worker may take to answer a query.
	askTimeout = 5 * time.Second
)

// watchOnboarding follows an onboarding until it is live, aborted, or waits for a person, and gives its status then. It
// calls report with every change. While the backfill runs, Backfill.Counts of the status are what has been read so far.
// While no worker answers, the status is the database's, which has no Steps. An onboarding that isn't there is
// fault.NotFound.
func watchOnboarding(ctx context.Context, s *session, tc client.Client, l store.Listed, report func(workflows.OnboardingStatus)) (workflows.OnboardingStatus, error) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var last workflows.OnboardingStatus
	for first := true; ; first = false {
		running, err := onboardingRuns(ctx, tc, l.Connection)
		if err != nil {
			return last, err
		}
		if !running {
			result, err := onboardingResult(ctx, tc, l)
			if err == nil {
				report(result)
			}
			return result, err
		}
		status, answered, err := s.onboardingStatus(ctx, tc, l)
		if err != nil {
			return last, err
		}
		if first || !reflect.DeepEqual(status, last) {
			last = status
			report(status)
		}
		if answered && status.WaitsFor != cura.WaitsForNobody {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-ticker.C:
		}
	}
}

// onboardingRuns reports whether a connection's onboarding is running.
func onboardingRuns(ctx context.Context, tc client.Client, id cura.ConnectionID) (bool, error) {
	description, err := tc.DescribeWorkflowExecution(ctx, workflows.OnboardingID(id), "")
	var missing *serviceerror.NotFound
	switch {
	case errors.As(err, &missing):
		return false, nil
	case err != nil:
		return false, temporalFault(ctx, "looking for the onboarding", err)
	}
	return description.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// onboardingResult is what an onboarding that has ended came to.
func onboardingResult(ctx context.Context, tc client.Client, l store.Listed) (workflows.OnboardingStatus, error) {
	var result workflows.OnboardingStatus
	err := tc.GetWorkflow(ctx, workflows.OnboardingID(l.Connection), "").Get(ctx, &result)
	var missing *serviceerror.NotFound
	switch {
	case err == nil:
		return result, nil
	case errors.As(err, &missing):
		return result, fault.Newf("looking for the onboarding", fault.NotFound, "%s has no onboarding", path(l)).
			WithFix("Begin one with: starter onboard " + path(l))
	case ctx.Err() != nil:
		return result, ctx.Err()
	}
	return result, ended("the onboarding of "+path(l), err)
}

// onboardingStatus asks a running onboarding for its status; where no worker answers, answered is false and the status
// is the database's, without steps.
func (s *session) onboardingStatus(ctx context.Context, tc client.Client, l store.Listed) (status workflows.OnboardingStatus, answered bool, err error) {
	status, err = ask(ctx, tc, l.Connection)
	if ctx.Err() != nil {
		return status, false, ctx.Err()
	}
	if err != nil {
		conn, err := s.state(ctx, l)
		return workflows.OnboardingStatus{
			Phase: conn.Phase, Health: conn.Health, WaitsFor: conn.WaitsFor, Why: conn.Why, Commands: conn.Commands,
		}, false, err
	}
	if status.Phase == cura.PhaseBackfill && status.BackfillRun != "" {
		counts, err := s.runCounts(ctx, l, status.BackfillRun)
		if err != nil {
			return status, true, err
		}
		status.Backfill = workflows.ReadResult{Run: status.BackfillRun, Outcome: "running", Counts: map[cura.ResourceType]cura.Counts{}}
		for t, c := range counts {
			status.Backfill.Counts[t] = c.Counts
		}
	}
	return status, true, nil
}

func ask(ctx context.Context, tc client.Client, id cura.ConnectionID) (workflows.OnboardingStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var status workflows.OnboardingStatus
	value, err := tc.QueryWorkflow(ctx, workflows.OnboardingID(id), "", workflows.QueryStatus)
	if err != nil {
		return status, err
	}
	err = value.Get(&status)
	return status, err
}

// runCounts reads the counts of a run so far, by type.
func (s *session) runCounts(ctx context.Context, l store.Listed, run string) (map[cura.ResourceType]store.TypeCounts, error) {
	var counts map[cura.ResourceType]store.TypeCounts
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		var err error
		counts, err = tx.RunCounts(ctx, run)
		return err
	})
	return counts, err
}

// temporalFault makes a fault of Temporal's errors, whose texts are not for people.
func temporalFault(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Wrap(op, fault.Unavailable, "Temporal refuses or doesn't answer", err).
		WithFix("Check TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE, and that the server runs")
}

// ended makes a fault of the error that a workflow ended with.
func ended(what string, err error) error {
	d := activities.DetailsOf(err)
	f := fault.Wrap("waiting for "+what, d.Kind, "it ended with an error: "+d.Detail, err)
	if d.Fix == "" {
		d.Fix = "The Temporal Web UI shows its history"
	}
	return f.WithFix(d.Fix)
}
