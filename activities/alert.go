package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

// Alert is what the webhook gets, as JSON. It names no patient.
type Alert struct {
	// ID is the same in each delivery of an alert: one that comes twice can be told by it.
	ID string `json:"id"`
	// Event is raised or cleared, About what it is about: waiting (for a person) or failing.
	Event string `json:"event"`
	About string `json:"about"`
	// At orders the alerts of a connection; deliveries may come in another order.
	At         time.Time         `json:"at"`
	Org        cura.OrgID        `json:"org_id"`
	Connection cura.ConnectionID `json:"connection_id"`
	Phase      cura.Phase        `json:"phase,omitempty"`
	WaitsFor   cura.WaitsFor     `json:"waits_for,omitempty"`
	// Since and FailuresInARow tell of a connection that fails.
	Since          *time.Time `json:"since,omitempty"`
	FailuresInARow int        `json:"failures_in_a_row,omitempty"`
	Why            string     `json:"why"`
	Commands       []string   `json:"commands"`
}

// The events of alerts, and what they are about.
const (
	alertRaised  = "raised"
	alertCleared = "cleared"
	aboutWaiting = "waiting"
	aboutFailing = "failing"
)

// raise audits an alert with the change that caused it; send then tells the world.
func raise(tx *store.Tx, t Target, s store.Standing) *Alert {
	tx.Audit(audit.Record{
		Kind: audit.AlertRaised, Connection: t.Connection, Outcome: audit.Success,
		Details: map[string]any{"waits_for": s.WaitsFor, "why": s.Why},
	})
	return &Alert{
		ID: uuid.NewString(), Event: alertRaised, About: aboutWaiting, At: time.Now().UTC(), Org: t.Org, Connection: t.Connection,
		Phase: s.Phase, WaitsFor: s.WaitsFor, Why: s.Why, Commands: s.Commands,
	}
}

// failing is the alert of an episode of failures, which the store has audited: raised when it begins, cleared when it
// ends.
func failing(t Target, event string, e store.Episode) Alert {
	alert := Alert{
		ID: uuid.NewString(), Event: event, About: aboutFailing, At: time.Now().UTC(), Org: t.Org, Connection: t.Connection,
		Since: &e.Since, FailuresInARow: e.Failures, Commands: []string{},
	}
	since := e.Since.UTC().Format(time.DateTime) + "Z"
	if event == alertCleared {
		alert.Why = fmt.Sprintf("the EHR answers again; since %s %d requests in a row had had no answer or a server error", since, e.Failures)
		return alert
	}
	alert.Why = fmt.Sprintf("since %s %d requests in a row have had no answer or a server error", since, e.Failures)
	alert.Commands = []string{"starter connection show " + string(t.Connection), "starter test " + string(t.Connection)}
	return alert
}

// send tells the world of an alert that the database has audited: the log and the metrics at once, and the webhook, where
// there is one, in the background. An alert that doesn't reach the webhook stands in the audit log all the same.
func (a *Activities) send(ctx context.Context, alert Alert) {
	log := a.log.With("org_id", string(alert.Org), "connection_id", string(alert.Connection), "alert_id", alert.ID)
	switch {
	case alert.About == aboutWaiting:
		log.WarnContext(ctx, "a connection waits for a person", "phase", string(alert.Phase), "waits_for", string(alert.WaitsFor), "why", alert.Why)
	case alert.Event == alertRaised:
		log.WarnContext(ctx, "a connection fails", "why", alert.Why)
	default:
		log.InfoContext(ctx, "a connection has recovered", "why", alert.Why)
	}
	a.metrics.Alert(ctx, alert.About, alert.Event)
	if a.cfg.AlertWebhook != "" {
		ctx := context.WithoutCancel(ctx) // the sync doesn't wait for it, nor it for the sync
		a.deliveries.running.Go(func() { a.deliver(ctx, log, alert) })
	}
}
