package activities

import (
	"context"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// maxParsed bounds of how many connections the overrides are kept parsed: the largest file takes some megabytes.
const maxParsed = 64

// parsedOverrides are the overrides that hold for a connection, with the version that they were set as. A version never gets another
// content, so they are good for as long as the connection names it.
type parsedOverrides struct {
	version   int
	overrides *mappings.Overrides
}

// overrides gives what a connection's resources are mapped with; nil where no overrides are set.
func (a *Activities) overrides(ctx context.Context, conn store.ConnectionState) (*mappings.Overrides, error) {
	if conn.Overrides == 0 {
		return nil, nil //nolint:nilnil // nil overrides are those that change nothing
	}
	a.mu.Lock()
	kept := a.parsed[conn.ID]
	a.mu.Unlock()
	if kept.version == conn.Overrides {
		return kept.overrides, nil
	}
	var file store.MappingOverrides
	err := a.store.InOrg(ctx, conn.OrgID, func(tx *store.Tx) error {
		var err error
		file, err = tx.MappingOverrides(ctx, conn.ID, conn.Overrides)
		return err
	})
	if err != nil {
		return nil, err
	}
	o, err := mappings.ParseOverrides("overrides", []byte(file.Text))
	if err != nil {
		// It was checked when it was set, by another release: its faults are for the person who looks it over.
		return nil, fault.Wrap("reading the mapping overrides", fault.Config, "this release doesn't take the file that is set", err).
			WithFix("Print it with starter mapping show, see what is wrong with starter mapping check, and set a corrected one with starter mapping set")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.parsed[conn.ID]; !known && len(a.parsed) >= maxParsed {
		for id := range a.parsed {
			delete(a.parsed, id) // any: whose connection is read next isn't known
			break
		}
	}
	a.parsed[conn.ID] = parsedOverrides{file.Version, o}
	return o, nil
}

// taken fails for a type that a connection's overrides take no resources of. Where it says whose clinical types may be pulled, leaving
// out Consent keeps those from being read as well: nobody knows who denies.
func (a *Activities) taken(ctx context.Context, conn store.ConnectionState, t cura.ResourceType) error {
	o, err := a.overrides(ctx, conn)
	if err != nil || !o.Excludes(t) {
		return err
	}
	kind := fault.Unsupported
	if t == cura.Consent && store.ConsentScoped(conn.PullConsent, cura.Observation) {
		kind = fault.Scope
	}
	return fault.New("reading "+string(t), kind, store.ExcludedType).
		WithFix("To have it read, take it out of types.exclude and set the file again: starter mapping set")
}
