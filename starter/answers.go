package main

import (
	"context"
	"errors"
	"time"

	"github.com/urfave/cli/v2"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

func retryCommand() *cli.Command {
	return &cli.Command{
		Name:        "retry",
		Usage:       "try the step of an onboarding again that waits for a person",
		ArgsUsage:   "CONNECTION",
		Description: example("starter retry st-mary/main"),
		Action: func(c *cli.Context) error {
			return answer(c, workflows.UpdateRetry, func(as workflows.Command) any { return as })
		},
	}
}

func approveCommand() *cli.Command {
	return &cli.Command{
		Name:        "approve",
		Usage:       "let the backfill begin, after a pilot that waits for approval",
		ArgsUsage:   "CONNECTION",
		Description: "Look at the pilot first, with: starter pilot CONNECTION\n\n" + example("starter approve st-mary/main"),
		Action: func(c *cli.Context) error {
			return answer(c, workflows.UpdateApprove, func(as workflows.Command) any { return as })
		},
	}
}

func extendCommand() *cli.Command {
	return &cli.Command{
		Name:        "extend",
		Usage:       "lengthen a connection's monitoring window",
		ArgsUsage:   "CONNECTION",
		Description: "Where the window was unhealthy, a new one of this length begins.\n\n" + example("starter extend st-mary/main --by 24h"),
		Flags:       []cli.Flag{&cli.DurationFlag{Name: "by", Usage: "how much `LONGER`, such as 24h"}},
		Action: func(c *cli.Context) error {
			by := c.Duration("by")
			if by <= 0 {
				return usagef("extend needs a positive time, such as --by 24h")
			}
			return answer(c, workflows.UpdateExtend, func(as workflows.Command) any { return workflows.ExtendCommand{Command: as, By: by} })
		},
	}
}

func abortCommand() *cli.Command {
	return &cli.Command{
		Name:        "abort",
		Usage:       "end an onboarding; what its pilot has written is purged",
		ArgsUsage:   "CONNECTION",
		Description: "What a backfill has brought into Cura stays.\n\n" + example("starter abort st-mary/main --reason \"the hospital has postponed\""),
		Flags:       []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "`WHY`, without any patient's data: it is kept in the workflow's history"}},
		Action: func(c *cli.Context) error {
			reason := c.String("reason")
			if len(reason) > 500 {
				return usagef("--reason is longer than 500 bytes; say it in a sentence")
			}
			return answer(c, workflows.UpdateAbort, func(as workflows.Command) any { return workflows.AbortCommand{Command: as, Reason: reason} })
		},
	}
}

// answerTimeout is how long a worker may take to carry out what a person said.
const answerTimeout = 10 * time.Second

// answer tells a running onboarding what a person says, and prints what it says to that. A refusal is printed as it is.
func answer(c *cli.Context, update string, command func(workflows.Command) any) error {
	return onConnection(c, func(s *session, l store.Listed) error {
		tc, err := s.temporal(c.Context)
		if err != nil {
			return err
		}
		defer tc.Close()
		text, err := sendUpdate(c.Context, tc, l, update, command(workflows.Command{As: s.actor}))
		outcome := audit.Success
		if err != nil {
			outcome = audit.Failure
		}
		if err := errors.Join(err, s.record(c.Context, l, update, outcome, nil)); err != nil {
			return err
		}
		hint(c, "See how it goes on with: starter status %s --watch", path(l))
		return printOne(c, map[string]string{"answer": text, "org": l.OrgName, "name": l.Name}, path(l)+": "+text+".")
	})
}

func sendUpdate(ctx context.Context, tc client.Client, l store.Listed, update string, command any) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var text string
	handle, err := tc.UpdateWorkflow(bounded, client.UpdateWorkflowOptions{
		WorkflowID: workflows.OnboardingID(l.Connection), UpdateName: update, Args: []any{command},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(bounded, &text)
	}
	var missing *serviceerror.NotFound
	var refused *temporal.ApplicationError
	var late *client.WorkflowUpdateServiceTimeoutOrCanceledError
	switch {
	case err == nil:
		return text, nil
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.As(err, &refused):
		return "", errors.New(refused.Message())
	case errors.As(err, &missing):
		return "", fault.Newf("telling the onboarding", fault.NotFound, "no onboarding of %s is running", path(l)).
			WithFix("See where it stands with: starter status " + path(l) + "; begin one with: starter onboard " + path(l))
	case bounded.Err() != nil || errors.As(err, &late):
		return "", fault.Newf("telling the onboarding", fault.Unavailable, "no worker has answered within %s", answerTimeout).
			WithFix("Start one, look whether it was told all the same with starter status " + path(l) + ", then try again")
	}
	return "", temporalFault(ctx, "telling the onboarding", err)
}
