package activities

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// intake takes the entries of one page through the steps that every resource passes, whichever way it came. prepare does what
// depends on the resource alone: hash (unchanged? done) -> validate -> map. settle does what depends on what is there when the
// page is written: unchanged after all, older, a repeat, whose patient. The store writes the outcome.
//
// An intake is one page's. The next page's is a copy, and may prepare while this one's items are settled and written.
type intake struct {
	a        *Activities
	pass     store.Pass
	target   Target // where the rows are written
	live     Target // whose profiles patients are matched with; differs from target in a pilot
	strategy cura.MatchStrategy
	// base is the connection's FHIR base: a reference to another server's patient is none to ours of the same id.
	base string
	// overrides are the connection's own rules on top of the mapping; nil: it has none.
	overrides *mappings.Overrides
	// serverTime is the server's clock when it served the page; zero: unknown.
	serverTime time.Time
	// policy is the connection's for pulling; empty in a pilot.
	policy cura.PullConsent
	// leftOut are the patients of whom settle has withheld something because of their consents, by EHR id.
	leftOut []string
	// known are patients of this very reading, who have no link in the database yet.
	known map[string]store.LinkState
	// decisions are how each patient of the page was matched, by EHR id; the pilot reports them.
	decisions map[string]match.Decision
}

// decide prepares and settles a page at once.
func (in *intake) decide(ctx context.Context, entries []fhir.Entry) ([]store.Item, error) {
	items, err := in.prepare(ctx, entries)
	if err != nil {
		return nil, err
	}
	return items, in.settle(ctx, items)
}

// prepare gives the items of a page, in the order of its entries, validated and mapped where they aren't unchanged by what
// the database holds now. That is a hint: the pages before may still be on their way there.
func (in *intake) prepare(ctx context.Context, entries []fhir.Entry) ([]store.Item, error) {
	items := make([]store.Item, len(entries))
	for i, e := range entries {
		items[i] = in.newItem(e)
	}
	heads, err := in.heads(ctx, items)
	if err != nil {
		return nil, err
	}
	var changed []*store.Item
	for i := range items {
		if it := &items[i]; it.Mapped == "" && !unchanged(it, heads) {
			changed = append(changed, it)
		}
	}
	return items, in.read(ctx, changed)
}

// settle decides the outcome of each item, in the order of the pages and right before they are written. Items that were
// settled before are settled anew: ErrSettledMeanwhile of the store asks for it.
func (in *intake) settle(ctx context.Context, items []store.Item) error {
	heads, err := in.heads(ctx, items)
	if err != nil {
		return err
	}
	for i := range items {
		unsettle(&items[i])
	}
	dropRepeats(items)
	var unread []*store.Item
	for i := range items {
		switch it := &items[i]; {
		case it.Outcome == store.Unchanged:
		case unchanged(it, heads):
			it.Outcome = store.Unchanged
		case it.Mapped == "":
			// It was unchanged when the page was prepared, and another version has been written since.
			unread = append(unread, it)
		}
	}
	if err := in.read(ctx, unread); err != nil {
		return err
	}
	for i := range items {
		if items[i].Outcome == "" {
			items[i].Outcome = items[i].Mapped
		}
	}
	if err := in.tie(ctx, items); err != nil {
		return err
	}
	return in.withhold(ctx, items)
}

// again decides about resources that have landed before.
func (in *intake) again(ctx context.Context, items []store.Item) ([]store.Item, error) {
	all := make([]*store.Item, len(items))
	for i := range items {
		all[i] = &items[i]
	}
	if err := in.read(ctx, all); err != nil {
		return nil, err
	}
	for _, it := range all {
		it.Outcome = it.Mapped
	}
	if err := in.tie(ctx, items); err != nil {
		return nil, err
	}
	return items, in.withhold(ctx, items)
}

// heads reads what the database holds of the items.
func (in *intake) heads(ctx context.Context, items []store.Item) (map[string]store.Head, error) {
	ids := make([]string, len(items))
	for i := range items {
		ids[i] = items[i].EHRID
	}
	var heads map[string]store.Head
	err := in.a.store.InOrg(ctx, in.target.Org, func(tx *store.Tx) error {
		var err error
		heads, err = tx.Heads(ctx, in.pass.Connection, in.pass.Type, ids)
		return err
	})
	return heads, err
}

// unchanged reports whether an item brings nothing new: the content is known, or it is an older version.
func unchanged(it *store.Item, heads map[string]store.Head) bool {
	head, ok := heads[it.EHRID]
	return ok && (bytes.Equal(head.Hash, it.Hash[:]) || older(it.LastUpdated, head.LastUpdated))
}

// unsettle takes back what settle has decided, and leaves what the resource alone says.
func unsettle(it *store.Item) {
	if it.Mapped != store.Quarantined {
		it.Reasons = nil
	}
	it.Outcome, it.Profile, it.MatchedBy, it.MatchSystems, it.MatchKeys = "", "", "", nil, nil
	it.WaitsForPatient, it.ReviewKind, it.ReviewReason, it.Candidates = "", "", "", nil
	it.Decided, it.Shown, it.Keep, it.ReplacedBy, it.Relink, it.Move = nil, nil, false, "", false, nil
}

// tie finds the profiles that the items belong to.
func (in *intake) tie(ctx context.Context, items []store.Item) error {
	if in.pass.Type == cura.Patient {
		return in.matchPatients(ctx, items)
	}
	return in.attach(ctx, items)
}

// newItem takes over an entry's head. A resource without a usable id, or of another type than was asked for, is kept by
// its content: it can't be told apart otherwise.
func (in *intake) newItem(e fhir.Entry) store.Item {
	it := store.Item{EHRID: e.ID, Hash: e.Hash, Raw: e.Resource, RawBytes: e.Size}
	if !fhir.IsID(it.EHRID) || e.Type != string(in.pass.Type) {
		it.EHRID = "sha256:" + hex.EncodeToString(e.Hash[:])
	}
	if len(e.VersionID) <= 255 && utf8.ValidString(e.VersionID) && !strings.ContainsRune(e.VersionID, 0) {
		it.VersionID = e.VersionID
	}
	// A time that hasn't come yet by the server's own clock says nothing, and would make every later version an older one.
	at, err := time.Parse(time.RFC3339Nano, e.LastUpdated)
	if err == nil && (in.serverTime.IsZero() || at.Before(in.serverTime.Add(time.Minute))) {
		it.LastUpdated = &at
	}
	switch {
	case e.Oversize:
		reject(&it, store.Reason{Path: string(in.pass.Type), Text: fmt.Sprintf("has %d bytes, which is above the cap", e.Size)})
	case e.Resource == nil:
		reject(&it, store.Reason{Path: "Bundle.entry.resource", Text: "is missing"})
	case e.Type != string(in.pass.Type):
		reject(&it, store.Reason{Path: "resourceType", Text: "isn't the type that was asked for"})
	}
	return it
}

func reject(it *store.Item, reasons ...store.Reason) {
	it.Mapped, it.Reasons = store.Quarantined, reasons
}

// older reports whether a was updated before b; an unknown time is never older.
func older(a, b *time.Time) bool { return a != nil && b != nil && a.Before(*b) }

// dropRepeats keeps the newest of each id; the other rows of a page are counted as unchanged.
func dropRepeats(items []store.Item) {
	newest := make(map[string]int, len(items))
	for i := range items {
		j, seen := newest[items[i].EHRID]
		switch {
		case !seen:
			newest[items[i].EHRID] = i
		case older(items[i].LastUpdated, items[j].LastUpdated):
			items[i].Outcome = store.Unchanged
		default:
			items[j].Outcome = store.Unchanged
			newest[items[i].EHRID] = i
		}
	}
}

func (in *intake) patients(ctx context.Context, ids []string) (map[string]store.LinkState, error) {
	var states map[string]store.LinkState
	err := in.a.store.InOrg(ctx, in.target.Org, func(tx *store.Tx) error {
		var err error
		states, err = tx.Patients(ctx, in.pass.Connection, ids)
		return err
	})
	return states, err
}

// read validates and maps items, on as many goroutines as the process has processors and nothing else is reading.
func (in *intake) read(ctx context.Context, items []*store.Item) error {
	var group errgroup.Group
	for len(items) > 0 {
		// A handful at once, so that taking turns costs nothing; one large resource is a handful.
		n, size := 0, int64(0)
		for n < len(items) && n < 32 && (n == 0 || size+items[n].RawBytes <= handful) {
			size += items[n].RawBytes
			n++
		}
		weight, some := in.a.cpu.weight(size), items[:n]
		items = items[n:]
		if err := in.a.cpu.Acquire(ctx, weight); err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error {
			defer in.a.cpu.Release(weight)
			for _, it := range some {
				in.readOne(it)
				if it.Landing == 0 && it.Raw != nil {
					it.Packed = in.a.store.Pack(it.Raw)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// readOne validates and maps one resource: to Stored, for now, or to Quarantined with the reasons.
func (in *intake) readOne(it *store.Item) {
	path := string(in.pass.Type)
	defer func() {
		// A panic on a goroutine of our own would end the process: it is a fault of this one resource.
		if recover() != nil {
			reject(it, store.Reason{Path: path, Text: "can't be mapped"})
		}
	}()
	if err := in.a.validator.Validate(it.Raw); err != nil && !in.modified(it.Raw) {
		reject(it, invalid(path, err)...)
		return
	}
	record, err := mappings.MapWith(it.Raw, in.overrides)
	if err != nil {
		reject(it, unmappable(path, err)...)
		return
	}
	it.Mapped, it.Record = store.Stored, record
}

func invalid(path string, err error) []store.Reason {
	invalid, ok := errors.AsType[*fhir.InvalidError](err)
	if !ok {
		return []store.Reason{{Path: path, Text: "isn't valid R4"}}
	}
	reasons := make([]store.Reason, len(invalid.Issues))
	for i, issue := range invalid.Issues {
		reasons[i] = store.Reason{Path: issue.Path, Text: issue.Code.Words()}
	}
	return reasons
}

func unmappable(path string, err error) []store.Reason {
	rejected, ok := errors.AsType[*mappings.RejectedError](err)
	if !ok {
		return []store.Reason{{Path: path, Text: "can't be mapped"}}
	}
	reasons := make([]store.Reason, len(rejected.Reasons))
	for i, r := range rejected.Reasons {
		reasons[i] = store.Reason{Path: r.Path, Text: r.Text}
	}
	return reasons
}

// setAside quarantines what the tables can't hold, after the database has refused a page.
func (in *intake) setAside(ctx context.Context, items []store.Item) error {
	for i := range items {
		if items[i].Outcome != store.Stored {
			continue
		}
		holds, err := in.a.store.Holds(ctx, in.target.Org, in.pass, in.overrides.Version(), items[i])
		if err != nil {
			return err
		}
		if !holds {
			reject(&items[i], store.Reason{Path: string(in.pass.Type), Text: "has a value that the database can't hold"})
			items[i].Outcome = store.Quarantined
		}
	}
	return nil
}

// ours reports whether a reference with this base, empty for a relative one, leads to the connection's own server.
func (in *intake) ours(base string) bool {
	return base == "" || strings.TrimRight(base, "/") == strings.TrimRight(in.base, "/")
}

// attach finds the profiles of the clinical resources of a page. One whose patient waits for a person waits with them;
// one whose patient isn't there is set aside until they are.
func (in *intake) attach(ctx context.Context, items []store.Item) error {
	var ids []string
	for i := range items {
		it := &items[i]
		if it.Outcome != store.Stored {
			continue
		}
		if !in.ours(it.Record.PatientBase) {
			it.Outcome = store.Quarantined
			it.Reasons = []store.Reason{{Path: string(in.pass.Type) + ".subject", Text: "refers to a patient of another server"}}
			continue
		}
		if !slices.Contains(ids, it.Record.PatientEHRID) {
			ids = append(ids, it.Record.PatientEHRID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	states, err := in.patients(ctx, ids)
	if err != nil {
		return err
	}
	for i := range items {
		it := &items[i]
		if it.Outcome != store.Stored {
			continue
		}
		state, ok := in.known[it.Record.PatientEHRID]
		if !ok {
			state = states[it.Record.PatientEHRID]
		}
		switch {
		case state.Profile != "":
			it.Profile = state.Profile
			if c := it.Record.Consent; c != nil && state.ReplacedBy != "" && c.Status == "active" && !it.Record.EnteredInError {
				it.Keep = !consent.Restricts([]consent.Consent{{Source: "ehr", Entry: *c}}, time.Now())
			}
		case state.InReview:
			it.Outcome, it.WaitsForPatient = store.InReview, it.Record.PatientEHRID
		default:
			it.Outcome, it.WaitsForPatient = store.Quarantined, it.Record.PatientEHRID
			it.Reasons = []store.Reason{{Path: string(in.pass.Type) + ".subject", Text: "refers to a patient whom the EHR hasn't served"}}
		}
	}
	return nil
}
