package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

// Alert is what the webhook gets, as JSON. It names no patient.
type Alert struct {
	Org        cura.OrgID        `json:"org_id"`
	Connection cura.ConnectionID `json:"connection_id"`
	Phase      cura.Phase        `json:"phase"`
	WaitsFor   cura.WaitsFor     `json:"waits_for"`
	Why        string            `json:"why"`
	Commands   []string          `json:"commands"`
}

// raise audits an alert with the change that caused it; send then tells the world.
func raise(tx *store.Tx, t Target, s store.Standing) *Alert {
	tx.Audit(audit.Record{
		Kind: audit.AlertRaised, Connection: t.Connection, Outcome: audit.Success,
		Details: map[string]any{"waits_for": s.WaitsFor, "why": s.Why},
	})
	return &Alert{Org: t.Org, Connection: t.Connection, Phase: s.Phase, WaitsFor: s.WaitsFor, Why: s.Why, Commands: s.Commands}
}

// send logs the alert and posts it to the webhook, where there is one. A webhook that doesn't take it is logged and not
// tried again: the alert also stands in the audit log and in `starter attention`.
func (a *Activities) send(ctx context.Context, alert Alert) {
	log := a.log.With("org_id", string(alert.Org), "connection_id", string(alert.Connection))
	log.WarnContext(ctx, "a connection waits for a person", "phase", string(alert.Phase), "waits_for", string(alert.WaitsFor), "why", alert.Why)
	if a.cfg.AlertWebhook == "" {
		return
	}
	text, err := json.Marshal(alert)
	if err != nil {
		log.ErrorContext(ctx, "encoding an alert")
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.cfg.AlertWebhook, bytes.NewReader(text))
	if err != nil {
		log.ErrorContext(ctx, "the alert webhook isn't a URL; correct CURA_ALERT_WEBHOOK")
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.webhook.Do(req)
	if err != nil {
		log.ErrorContext(ctx, "the alert webhook doesn't answer")
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		log.ErrorContext(ctx, "the alert webhook refuses the alert", "status", resp.StatusCode)
	}
}
