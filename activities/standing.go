package activities

import (
	"context"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

// StandingInput is where a connection stands now.
type StandingInput struct {
	Target
	Phase    cura.Phase    `json:"phase"`
	Health   cura.Health   `json:"health"`
	WaitsFor cura.WaitsFor `json:"waits_for"`
	Why      string        `json:"why,omitempty"`
	Commands []string      `json:"commands,omitempty"`
	// Actor is who caused the change; empty: the worker.
	Actor string `json:"actor,omitempty"`
}

// RecordStanding writes where the onboarding stands, for `starter status` and `attention`, and alerts when it begins to
// wait for a person.
func (a *Activities) RecordStanding(ctx context.Context, in StandingInput) error {
	standing := store.Standing{Phase: in.Phase, Health: in.Health, WaitsFor: in.WaitsFor, Why: in.Why, Commands: in.Commands}
	actor := in.Actor
	if actor == "" {
		actor = audit.Worker
	}
	var alert *Alert
	err := a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		if err := tx.SetStanding(ctx, in.Connection, standing, actor); err != nil {
			return err
		}
		if in.Health == cura.HealthAttention {
			alert = raise(tx, in.Target, standing)
		}
		return nil
	})
	if err == nil && alert != nil {
		a.send(ctx, *alert)
	}
	return temporalError(ctx, err)
}
