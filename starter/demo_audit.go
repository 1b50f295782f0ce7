package main

import (
	"context"

	"github.com/cura-health/ehr-sync/internal/store"
)

// auditSummary is how the audit log of the demo's org stands at its end.
type auditSummary struct {
	// Records is how many the last head covers.
	Records  int64 `json:"records"`
	Verified bool  `json:"verified"`
	// Why says what is wrong with the log; empty where nothing is.
	Why string `json:"why,omitempty"`
	// Head is the last head, as it was signed.
	Head string `json:"head"`
}

// verifyAudit seals what the worker hasn't yet, and verifies the log, as `starter audit seal` and `starter audit verify` do.
func (m *demo) verifyAudit(ctx context.Context) (*auditSummary, error) {
	key, folder, err := m.session.auditKey()
	if err != nil {
		return nil, err
	}
	if _, err := m.session.store.SealAudit(ctx, m.listed.Org, key, folder); err != nil {
		return nil, err
	}
	v, err := m.session.verifyOrg(ctx, store.Org{ID: m.listed.Org, Name: m.listed.OrgName}, folder, key.Verifiers())
	return &auditSummary{Records: v.Sealed, Verified: v.Verified, Why: v.Why, Head: v.Head}, err
}
