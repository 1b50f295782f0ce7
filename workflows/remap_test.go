package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// shelf is what the workflow finds: a connection of which three types have landed.
type shelf struct {
	env    *testsuite.TestWorkflowEnvironment
	retake func(in activities.RetakeInput, call int) (activities.RetakeResult, error)
	begun  []activities.BeginRemapInput
	asked  []activities.RetakeInput
	ended  map[cura.ResourceType]activities.Details
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	s := &shelf{env: suite.NewTestWorkflowEnvironment()}
	s.retake = func(in activities.RetakeInput, _ int) (activities.RetakeResult, error) {
		return activities.RetakeResult{Done: true, Pages: 1, Retaken: activities.Retaken{Type: in.Type, RetakeCounts: store.RetakeCounts{Same: 3}}}, nil
	}
	s.env.SetTestTimeout(time.Minute)
	s.env.RegisterWorkflow(workflows.Remap)
	s.env.RegisterActivityWithOptions(func(_ context.Context, in activities.BeginRemapInput) (activities.BeginRemapResult, error) {
		s.begun = append(s.begun, in)
		return activities.BeginRemapResult{Types: []cura.ResourceType{cura.Patient, cura.Consent, cura.Observation}, MappingVersion: "1+site.2.00000000"}, nil
	}, activity.RegisterOptions{Name: "BeginRemap"})
	s.env.RegisterActivityWithOptions(func(_ context.Context, in activities.RetakeInput) (activities.RetakeResult, error) {
		s.asked = append(s.asked, in)
		return s.retake(in, len(s.asked))
	}, activity.RegisterOptions{Name: "Retake"})
	s.env.RegisterActivityWithOptions(func(_ context.Context, in activities.FinishInput) (activities.FinishResult, error) {
		s.ended = in.Ended
		return activities.FinishResult{Outcome: map[bool]string{true: "complete", false: "incomplete"}[len(in.Ended) == 0]}, nil
	}, activity.RegisterOptions{Name: "FinishRun"})
	return s
}

func (s *shelf) remap(t *testing.T, in workflows.RemapInput) workflows.RemapResult {
	t.Helper()
	in.Target = target()
	s.env.ExecuteWorkflow(workflows.Remap, in)
	require.NoError(t, s.env.GetWorkflowError())
	var r workflows.RemapResult
	require.NoError(t, s.env.GetWorkflowResult(&r))
	return r
}

func TestTypesAreMappedAgainInOrderAndWithOneMapping(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := s.remap(t, workflows.RemapInput{DryRun: true, Types: []cura.ResourceType{cura.Patient, cura.Consent, cura.Observation}})
	require.Equal(t, "complete", r.Outcome)
	require.True(t, r.DryRun)
	require.Equal(t, "1+site.2.00000000", r.MappingVersion)
	require.Len(t, r.Types, 3)
	for i, typ := range s.begun[0].Types {
		require.Equal(t, typ, r.Types[i].Type)
		require.Equal(t, activities.RetakeInput{
			Target: target(), Run: r.Run, Type: typ, DryRun: true, MappingVersion: "1+site.2.00000000",
		}, s.asked[i])
	}
}

func TestWhatAPersonWaitsForGoesAhead(t *testing.T) {
	t.Parallel()
	for _, only := range []string{activities.RetakeQuarantined, activities.RetakeDecided} {
		s := newShelf(t)
		s.remap(t, workflows.RemapInput{Selection: activities.Selection{Only: only, Path: "Observation.status"}})
		require.True(t, s.asked[0].Ahead, only)
		require.Equal(t, activities.Selection{Only: only, Path: "Observation.status"}, s.asked[0].Selection)
	}
}

func TestATypeGoesOnUntilItIsDoneAndWaitsForOthers(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.retake = func(in activities.RetakeInput, call int) (activities.RetakeResult, error) {
		return activities.RetakeResult{Done: call%3 == 0, Yielded: call%3 == 1, Pages: call % 2, Retaken: activities.Retaken{Type: in.Type}}, nil
	}
	began := s.env.Now()
	require.Len(t, s.remap(t, workflows.RemapInput{}).Types, 3)
	require.Len(t, s.asked, 9)
	require.GreaterOrEqual(t, s.env.Now().Sub(began), 6*time.Second)
}

func TestAReaderThatNeverLetsGoEndsItsTypeAlone(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	done := s.retake
	s.retake = func(in activities.RetakeInput, call int) (activities.RetakeResult, error) {
		if in.Type == cura.Consent {
			return activities.RetakeResult{Yielded: true}, nil
		}
		return done(in, call)
	}
	r := s.remap(t, workflows.RemapInput{})
	require.Equal(t, "incomplete", r.Outcome)
	require.Len(t, r.Types, 2)
	require.Equal(t, cura.Consent, r.Ended[0].Type)
	require.Equal(t, fault.Busy, s.ended[cura.Consent].Kind)
}

func TestATypeThatFailsIsToldAndTheOthersAreMapped(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	done := s.retake
	s.retake = func(in activities.RetakeInput, call int) (activities.RetakeResult, error) {
		if in.Type == cura.Patient {
			return activities.RetakeResult{}, refuses(fault.Conflict, "the mapping has changed since the run began")
		}
		return done(in, call)
	}
	r := s.remap(t, workflows.RemapInput{})
	require.Equal(t, "incomplete", r.Outcome)
	require.Len(t, r.Types, 2)
	require.Equal(t, "the mapping has changed since the run began", r.Ended[0].Details.Detail)
}

func TestALongHistoryOfMappingIsCutAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.retake = func(in activities.RetakeInput, call int) (activities.RetakeResult, error) {
		if call == 2 {
			s.env.SetContinueAsNewSuggested(true)
		}
		return activities.RetakeResult{Done: call == 1, Pages: 1, Retaken: activities.Retaken{Type: in.Type}}, nil
	}
	s.env.ExecuteWorkflow(workflows.Remap, workflows.RemapInput{Target: target()})
	var again *workflow.ContinueAsNewError
	require.ErrorAs(t, s.env.GetWorkflowError(), &again)
	var in workflows.RemapInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &in))
	require.Equal(t, []activities.Retaken{{Type: cura.Patient}}, in.Done)
	require.Equal(t, "1+site.2.00000000", in.Begun.MappingVersion)

	next := newShelf(t)
	require.Len(t, next.remap(t, in).Types, 3)
	require.Empty(t, next.begun, "the run was begun before")
	require.Equal(t, cura.Consent, next.asked[0].Type)
}
