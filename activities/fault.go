package activities

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// Details travel with an activity's error, so that the workflow can tell a person what to do.
type Details struct {
	Kind   fault.Kind `json:"kind"`
	Detail string     `json:"detail"`
	Fix    string     `json:"fix,omitempty"`
	// Attempts is how often it was tried before giving up.
	Attempts int `json:"attempts,omitempty"`
}

// temporalError is the one place where faults become Temporal errors: the type is the fault's kind; what a retry can't
// mend isn't retried; Temporal is told how long to wait, with jitter of ours, since the server adds none.
func temporalError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(ctx.Err(), context.Canceled) {
		return temporal.NewCanceledError()
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		f = fault.Wrap("running the activity", fault.Unknown, fault.Public(err), err)
	}
	options := temporal.ApplicationErrorOptions{
		Details: []any{Details{Kind: f.Kind, Detail: f.Op + ": " + f.Detail, Fix: f.Fix, Attempts: f.Attempts}},
	}
	switch f.Kind {
	case fault.Unknown, fault.Unavailable, fault.Transient, fault.Network, fault.Expired:
		options.NextRetryDelay = Backoff(int(activity.GetInfo(ctx).Attempt), time.Second, time.Minute)
	case fault.Throttled:
		options.Category = temporal.ApplicationErrorCategoryBenign
		options.NextRetryDelay = max(f.RetryAfter, time.Second)
	case fault.Busy:
		options.Category = temporal.ApplicationErrorCategoryBenign
		options.NextRetryDelay = max(f.RetryAfter, time.Second)
	case fault.Auth, fault.Scope, fault.TLS, fault.Protocol, fault.Unsupported, fault.Data, fault.Config, fault.NotFound, fault.Conflict,
		fault.Depth, fault.Paused:
		options.NonRetryable = true
	}
	if f.Attempts > 0 {
		options.NonRetryable = true
	}
	// No cause: the text of an error that isn't a fault may hold PHI.
	return temporal.NewApplicationErrorWithOptions(f.Error(), string(f.Kind), options)
}

// Backoff is the wait before the attempt after this one: initial doubled for each attempt so far, at most limit, and
// jittered by half either way, so that many who failed together don't return together.
func Backoff(attempt int, initial, limit time.Duration) time.Duration {
	wait := initial
	for i := 1; i < attempt && wait < limit; i++ {
		wait *= 2
	}
	wait = min(wait, limit)
	return wait/2 + time.Duration(rand.Int64N(int64(wait)+1)) //nolint:gosec // G404: jitter need not be secret
}

// DetailsOf finds the details of an activity's error, or a child workflow's, as the workflow sees it.
func DetailsOf(err error) Details {
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return Details{Kind: fault.Conflict, Detail: "an earlier one still runs", Fix: "Wait until it has ended, then retry"}
	}
	if app, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		var d Details
		if app.HasDetails() && app.Details(&d) == nil && d.Kind != "" {
			return d
		}
		return Details{Kind: fault.Unknown, Detail: "an activity failed: " + app.Type()}
	}
	if timeout, ok := errors.AsType[*temporal.TimeoutError](err); ok {
		return Details{Kind: fault.Unavailable, Detail: "an activity didn't end in time: " + timeout.TimeoutType().String(), Fix: "See that a worker runs"}
	}
	return Details{Kind: fault.Unknown, Detail: "an activity failed"}
}

// retryAfter is how long the EHR asks to be left alone; 0 where it doesn't say.
func retryAfter(err error) time.Duration {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.RetryAfter
	}
	return 0
}
