package workflows_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/workflows"
)

// queue is a patient link's queue, as Delivery sees it: one activity, which says what it likes.
type queue struct {
	env   *testsuite.TestWorkflowEnvironment
	began time.Time
	// calls is how often Deliver was called, and at when, since the beginning.
	calls int
	at    []time.Duration
}

func deliverInput() activities.DeliverInput {
	return activities.DeliverInput{Target: target(), Link: "44444444-4444-4444-8444-444444444444"}
}

// newQueue registers a Deliver that answers call by call, from 1 on.
func newQueue(t *testing.T, deliver func(call int) (activities.DeliverResult, error)) *queue {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	q := &queue{env: suite.NewTestWorkflowEnvironment()}
	q.env.SetTestTimeout(time.Minute)
	q.env.RegisterWorkflow(workflows.Delivery)
	q.began = q.env.Now()
	q.env.RegisterActivityWithOptions(func(_ context.Context, in activities.DeliverInput) (activities.DeliverResult, error) {
		if in != deliverInput() {
			return activities.DeliverResult{}, errors.New("another queue's input")
		}
		q.calls++
		q.at = append(q.at, q.env.Now().Sub(q.began))
		return deliver(q.calls)
	}, activity.RegisterOptions{Name: "Deliver"})
	return q
}

func (q *queue) run(t *testing.T) error {
	t.Helper()
	q.env.ExecuteWorkflow(workflows.Delivery, deliverInput())
	require.True(t, q.env.IsWorkflowCompleted())
	return q.env.GetWorkflowError()
}

// wakeAfter signals the queue once so much workflow time has passed.
func (q *queue) wakeAfter(d time.Duration, signal string) {
	q.env.RegisterDelayedCallback(func() { q.env.SignalWorkflow(signal, nil) }, d)
}

func TestADeliveryEndsWhenItsQueueIsEmpty(t *testing.T) {
	t.Parallel()
	q := newQueue(t, func(call int) (activities.DeliverResult, error) {
		return activities.DeliverResult{Items: 3, Idle: call == 3}, nil
	})
	require.NoError(t, q.run(t))
	require.Equal(t, 3, q.calls)
}

func TestADeliveryThatIsWokenWhileItEndsLooksAgain(t *testing.T) {
	t.Parallel()
	for _, signal := range []string{workflows.SignalOutboxReady, workflows.SignalConsentRevoked} {
		t.Run(signal, func(t *testing.T) {
			t.Parallel()
			var q *queue
			q = newQueue(t, func(call int) (activities.DeliverResult, error) {
				if call == 1 {
					for range 5 { // between the activity's last look and the workflow's end; all of them want one more look
						q.env.SignalWorkflow(signal, nil)
					}
				}
				return activities.DeliverResult{Idle: true}, nil
			})
			require.NoError(t, q.run(t))
			require.Equal(t, 2, q.calls)
		})
	}
}

func TestADeliveryWaitsAndIsWoken(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		signal string
		after  time.Duration
	}{
		"nobody wakes it":       {after: time.Hour},
		"something is queued":   {workflows.SignalOutboxReady, 10 * time.Minute},
		"consent was withdrawn": {workflows.SignalConsentRevoked, 20 * time.Minute},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueue(t, func(call int) (activities.DeliverResult, error) {
				if call == 1 {
					return activities.DeliverResult{Wait: time.Hour, Why: "pushes are halted by pat"}, nil
				}
				return activities.DeliverResult{Idle: true}, nil
			})
			if tc.signal != "" {
				q.wakeAfter(tc.after, tc.signal)
			}
			require.NoError(t, q.run(t))
			require.Equal(t, 2, q.calls)
			require.InDelta(t, tc.after.Seconds(), q.at[1].Seconds(), 5)
		})
	}
}

func TestWhatStopsTheWholeQueueIsTriedAgain(t *testing.T) {
	t.Parallel()
	q := newQueue(t, func(call int) (activities.DeliverResult, error) {
		if call <= 3 {
			return activities.DeliverResult{}, refuses(fault.Auth, "invalid_client")
		}
		return activities.DeliverResult{Idle: true}, nil
	})
	require.NoError(t, q.run(t))
	require.Equal(t, 4, q.calls)
	require.GreaterOrEqual(t, q.at[3], 3*time.Minute, "with a pause each time")
}

func TestADeliveryThatIsCancelledEnds(t *testing.T) {
	t.Parallel()
	q := newQueue(t, func(int) (activities.DeliverResult, error) {
		return activities.DeliverResult{Wait: time.Hour}, nil
	})
	q.env.RegisterDelayedCallback(q.env.CancelWorkflow, time.Minute)
	require.Error(t, q.run(t))
	require.Equal(t, 1, q.calls)
}

func TestALongDeliveryContinuesAsNew(t *testing.T) {
	t.Parallel()
	q := newQueue(t, func(int) (activities.DeliverResult, error) {
		return activities.DeliverResult{Items: 100}, nil
	})
	q.env.SetContinueAsNewSuggested(true)
	err := q.run(t)
	next, ok := errors.AsType[*workflow.ContinueAsNewError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, "Delivery", next.WorkflowType.Name)
	require.Equal(t, 1, q.calls)

	empty := newQueue(t, func(int) (activities.DeliverResult, error) { return activities.DeliverResult{Idle: true}, nil })
	empty.env.SetContinueAsNewSuggested(true)
	require.NoError(t, empty.run(t), "what is empty ends all the same")
}
