package activities

import (
	"context"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/profile"
)

// Pacer is what activities ask for a connection's pace.
type Pacer = pacer

// PaceOf is how connect comes by the pacer of a connection.
func (a *Activities) PaceOf(t Target, p *profile.Profile) *Pacer { return a.pace(t, p) }

// Recall is what connect does with it.
func (p *pacer) Recall(ctx context.Context) error { return p.recall(ctx) }

// TakeSlot is how PullType takes a slot of its org.
func (a *Activities) TakeSlot(org cura.OrgID) (release func(), ok bool) { return a.takeSlot(org) }

// Insist is how an endpoint test asks for the pace.
func (p *pacer) Insist() ehr.Pace { return insisting{p} }
