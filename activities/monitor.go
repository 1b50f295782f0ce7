package activities

import (
	"context"
	"encoding/json"
	"time"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// EvaluateInput is a monitoring window and what it is held against.
type EvaluateInput struct {
	Target
	Began      time.Time       `json:"began"`
	Thresholds cura.Thresholds `json:"thresholds"`
}

// EvaluateWindow judges a window by the run-level records of the audit log: what they say is what monitoring knows.
func (a *Activities) EvaluateWindow(ctx context.Context, in EvaluateInput) (cura.Evaluation, error) {
	var evaluation cura.Evaluation
	err := a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		records, err := tx.AuditSince(ctx, in.Connection, audit.RunFinished, in.Began)
		if err != nil {
			return err
		}
		var syncs []cura.SyncFact
		for _, r := range records {
			fact, ok, err := syncFact(r)
			if err != nil {
				return err
			}
			if ok {
				syncs = append(syncs, fact)
			}
		}
		evaluation = cura.Judge(in.Began, time.Now(), syncs, in.Thresholds)
		if !evaluation.Healthy() {
			tx.Audit(audit.Record{Kind: audit.WindowEvaluated, Connection: in.Connection, Outcome: audit.Failure, Details: evaluation})
		}
		return nil
	})
	return evaluation, temporalError(ctx, err)
}

// syncFact reads a run-level record; only scheduled and hand-started syncs count.
func syncFact(r audit.Record) (cura.SyncFact, bool, error) {
	raw, _ := r.Details.([]byte)
	var d audit.RunDetails
	if err := json.Unmarshal(raw, &d); err != nil {
		return cura.SyncFact{}, false, fault.Wrap("reading a run's audit record", fault.Unknown, "its details can't be read", err)
	}
	fact := cura.SyncFact{EndedAt: r.At, Complete: d.Outcome == "complete", AuthFailed: d.Faults[string(fault.Auth)] > 0}
	for _, c := range d.Counts {
		fact.Landed += c.Landed
		fact.Quarantined += c.Quarantined
	}
	return fact, d.Kind == string(cura.RunIncremental), nil
}
