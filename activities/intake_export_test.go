package activities

import (
	"context"

	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
)

// Intake is one page's intake, as the tests see it.
type Intake struct{ in intake }

// NewIntake makes the intake of a page of a connection.
func NewIntake(a *Activities, pass store.Pass, target Target, conn store.ConnectionState) *Intake {
	return &Intake{intake{a: a, pass: pass, target: target, live: target, strategy: conn.Match, base: conn.BaseURL}}
}

// Prepare is prepare.
func (i *Intake) Prepare(ctx context.Context, entries []fhir.Entry) ([]store.Item, error) {
	return i.in.prepare(ctx, entries)
}

// Settle is settle.
func (i *Intake) Settle(ctx context.Context, items []store.Item) error {
	return i.in.settle(ctx, items)
}

// Again decides once more about entries that have landed.
func (i *Intake) Again(ctx context.Context, entries []fhir.Entry) ([]store.Item, error) {
	items := make([]store.Item, len(entries))
	for n, e := range entries {
		items[n] = i.in.newItem(e)
	}
	heads, err := i.in.heads(ctx, items)
	if err != nil {
		return nil, err
	}
	for n := range items {
		items[n].Landing = heads[items[n].EHRID].Landing
	}
	return i.in.again(ctx, items)
}

// Weight is what so many bytes take of count processors, and what there is of them.
func Weight(count, bytes int64) (weight, all int64) {
	p := processors{count: count}
	return p.weight(bytes), p.weight(1 << 40)
}
