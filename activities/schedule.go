package activities

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// ScheduleInput describes the schedule of a connection's incremental sync, and those beside it.
type ScheduleInput struct {
	Target
	ScheduleID string        `json:"schedule_id"`
	Interval   time.Duration `json:"interval"`
	// Workflow, WorkflowID, TaskQueue and Args say what each run starts.
	Workflow   string          `json:"workflow"`
	WorkflowID string          `json:"workflow_id"`
	TaskQueue  string          `json:"task_queue"`
	Args       json.RawMessage `json:"args"`
	// Summary is what the Web UI shows of each run.
	Summary string `json:"summary"`
	// Also are further schedules of the connection, such as the nightly comparison.
	Also []ScheduleInput `json:"also,omitempty"`
}

// catchUp is how far back missed runs are made up for. The default of a year would run them all after an outage; one
// run reads from the watermark and makes up for all of them.
const catchUp = 10 * time.Minute

// EnableSchedule makes the schedules, or brings them up to date, and starts them.
func (a *Activities) EnableSchedule(ctx context.Context, in ScheduleInput) error {
	for _, s := range append([]ScheduleInput{in}, in.Also...) {
		if err := a.enableSchedule(ctx, s); err != nil {
			return temporalError(ctx, fault.Wrap("enabling the schedule", fault.Unavailable, "Temporal refuses or doesn't answer", err))
		}
	}
	return temporalError(ctx, a.auditSchedule(ctx, in.Target, "enabled", in.Interval.String(), in.Interval))
}

func (a *Activities) enableSchedule(ctx context.Context, in ScheduleInput) error {
	spec := client.ScheduleSpec{
		Intervals: []client.ScheduleIntervalSpec{{Every: in.Interval}},
		Jitter:    in.Interval / 10,
	}
	action := &client.ScheduleWorkflowAction{
		ID: in.WorkflowID, Workflow: in.Workflow, TaskQueue: in.TaskQueue, Args: []any{in.Args}, StaticSummary: in.Summary,
	}
	_, err := a.temporal.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: in.ScheduleID, Spec: spec, Action: action,
		Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: catchUp,
	})
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		handle := a.temporal.ScheduleClient().GetHandle(ctx, in.ScheduleID)
		err = handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(u client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			s := u.Description.Schedule
			s.Spec, s.Action = &spec, action
			s.State.Paused, s.State.Note = false, "enabled by onboarding"
			return &client.ScheduleUpdate{Schedule: &s}, nil
		}})
	}
	return err
}

// PauseInput names a schedule and says why it stops.
type PauseInput struct {
	Target
	ScheduleID string `json:"schedule_id"`
	Why        string `json:"why"`
	// Also are further schedules that stop with it.
	Also []string `json:"also,omitempty"`
}

// PauseSchedule stops the schedule; one that isn't there is as good as paused.
func (a *Activities) PauseSchedule(ctx context.Context, in PauseInput) error {
	return a.stopSchedules(ctx, in, "paused", func(s client.ScheduleHandle) error {
		return s.Pause(ctx, client.SchedulePauseOptions{Note: in.Why})
	})
}

// DeleteSchedule removes the schedule.
func (a *Activities) DeleteSchedule(ctx context.Context, in PauseInput) error {
	return a.stopSchedules(ctx, in, "deleted", func(s client.ScheduleHandle) error { return s.Delete(ctx) })
}

func (a *Activities) stopSchedules(ctx context.Context, in PauseInput, what string, stop func(client.ScheduleHandle) error) error {
	stopped := false
	for _, id := range append([]string{in.ScheduleID}, in.Also...) {
		err := stop(a.temporal.ScheduleClient().GetHandle(ctx, id))
		if _, missing := errors.AsType[*serviceerror.NotFound](err); missing {
			continue
		}
		if err != nil {
			return temporalError(ctx, fault.Wrap("stopping the schedule", fault.Unavailable, "Temporal refuses or doesn't answer", err))
		}
		stopped = true
	}
	if !stopped {
		return nil
	}
	return temporalError(ctx, a.auditSchedule(ctx, in.Target, what, in.Why, 0))
}

// auditSchedule records what became of the schedule, and how often it syncs now.
func (a *Activities) auditSchedule(ctx context.Context, t Target, what, why string, interval time.Duration) error {
	return a.store.InOrg(ctx, t.Org, func(tx *store.Tx) error {
		tx.Audit(audit.Record{
			Kind: audit.ScheduleChanged, Connection: t.Connection, Outcome: audit.Success,
			Details: map[string]string{"schedule": what, "why": why},
		})
		return tx.SetSyncInterval(ctx, t.Connection, interval)
	})
}
