package activities

import (
	"context"

	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// Parsed is of how many connections the overrides are kept parsed, and how many that may be.
func (a *Activities) Parsed() (kept, most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.parsed), maxParsed
}

// OverridesOf is overrides.
func (a *Activities) OverridesOf(ctx context.Context, conn store.ConnectionState) (*mappings.Overrides, error) {
	return a.overrides(ctx, conn)
}
