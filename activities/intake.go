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

	"github.com/google/uuid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// intake takes one page of entries through the steps that every resource passes, whichever way it came:
// hash (unchanged? done) -> validate -> map -> match. It decides an outcome for each; the store writes them.
type intake struct {
	a        *Activities
	pass     store.Pass
	target   Target // where the rows are written
	live     Target // whose profiles patients are matched with; differs from target in a pilot
	strategy cura.MatchStrategy
	// base is the connection's FHIR base: a reference to another server's patient is none to ours of the same id.
	base string
	// serverTime is the server's clock when it served the page; zero: unknown.
	serverTime time.Time
	// known are patients of this very reading, who have no link in the database yet.
	known map[string]store.LinkState
	// decisions are how each patient of the page was matched, by EHR id; the pilot reports them.
	decisions map[string]match.Decision
}

// decide gives the items of a page, in the order of its entries.
func (in *intake) decide(ctx context.Context, entries []fhir.Entry) ([]store.Item, error) {
	items := make([]store.Item, len(entries))
	ids := make([]string, len(entries))
	for i, e := range entries {
		items[i] = in.newItem(e)
		ids[i] = items[i].EHRID
	}
	var heads map[string]store.Head
	err := in.a.store.InOrg(ctx, in.target.Org, func(tx *store.Tx) error {
		var err error
		heads, err = tx.Heads(ctx, in.pass.Connection, in.pass.Type, ids)
		return err
	})
	if err != nil {
		return nil, err
	}
	dropRepeats(items)
	for i := range items {
		if items[i].Outcome == store.Unchanged {
			continue
		}
		head, ok := heads[items[i].EHRID]
		if ok && (bytes.Equal(head.Hash, items[i].Hash[:]) || older(items[i].LastUpdated, head.LastUpdated)) {
			items[i].Outcome = store.Unchanged
		}
	}
	for i := range items {
		if items[i].Outcome == "" {
			in.read(&items[i], entries[i])
		}
	}
	return items, in.tie(ctx, items)
}

// again decides about resources that have landed before.
func (in *intake) again(ctx context.Context, items []store.Item) ([]store.Item, error) {
	for i := range items {
		in.read(&items[i], fhir.Entry{Resource: items[i].Raw, Size: items[i].RawBytes, Type: string(in.pass.Type)})
	}
	return items, in.tie(ctx, items)
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
	return it
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

// read validates and maps one resource: to Stored, for now, or to Quarantined with the reasons.
func (in *intake) read(it *store.Item, e fhir.Entry) {
	reject := func(reasons ...store.Reason) {
		it.Outcome, it.Reasons = store.Quarantined, reasons
	}
	path := string(in.pass.Type)
	switch {
	case e.Oversize:
		reject(store.Reason{Path: path, Text: fmt.Sprintf("has %d bytes, which is above the cap", e.Size)})
		return
	case e.Resource == nil:
		reject(store.Reason{Path: "Bundle.entry.resource", Text: "is missing"})
		return
	case e.Type != string(in.pass.Type):
		reject(store.Reason{Path: "resourceType", Text: "isn't the type that was asked for"})
		return
	}
	if err := in.a.validator.Validate(e.Resource); err != nil {
		reject(invalid(path, err)...)
		return
	}
	record, err := mappings.Map(e.Resource)
	if err != nil {
		reject(unmappable(path, err)...)
		return
	}
	it.Outcome, it.Record = store.Stored, record
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
		holds, err := in.a.store.Holds(ctx, in.target.Org, in.pass, mappings.Version, items[i])
		if err != nil {
			return err
		}
		if !holds {
			items[i].Outcome = store.Quarantined
			items[i].Reasons = []store.Reason{{Path: string(in.pass.Type), Text: "has a value that the database can't hold"}}
		}
	}
	return nil
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
		if other := it.Record.PatientBase; other != "" && strings.TrimRight(other, "/") != strings.TrimRight(in.base, "/") {
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
		case state.InReview:
			it.Outcome, it.WaitsForPatient = store.InReview, it.Record.PatientEHRID
		default:
			it.Outcome, it.WaitsForPatient = store.Quarantined, it.Record.PatientEHRID
			it.Reasons = []store.Reason{{Path: string(in.pass.Type) + ".subject", Text: "refers to a patient whom the EHR hasn't served"}}
		}
	}
	return nil
}

// matchPatients ties the patients of a page to profiles: those linked before keep their link, the others are matched by
// the connection's strategy with the live org's profiles, and with those made earlier on the same page.
func (in *intake) matchPatients(ctx context.Context, items []store.Item) error {
	var ids, values []string
	for _, it := range items {
		if it.Outcome == store.Stored {
			ids = append(ids, it.EHRID)
			values = append(values, match.Keys(it.Record.Profile, in.strategy)...)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	linked, err := in.patients(ctx, ids)
	if err != nil {
		return err
	}
	var found map[string][]match.Candidate
	err = in.a.store.InOrg(ctx, in.live.Org, func(tx *store.Tx) error {
		var err error
		found, err = tx.Candidates(ctx, in.live.Connection, in.strategy, values)
		return err
	})
	if err != nil {
		return err
	}
	in.decisions = map[string]match.Decision{}
	for i := range items {
		it := &items[i]
		if it.Outcome != store.Stored {
			continue
		}
		if profile := linked[it.EHRID].Profile; profile != "" {
			it.Profile = profile
			in.decisions[it.EHRID] = match.Decision{Outcome: match.Matched, Profile: profile, Reason: "linked before"}
			continue
		}
		in.matchPatient(it, found)
	}
	return nil
}

func (in *intake) matchPatient(it *store.Item, found map[string][]match.Candidate) {
	profile := it.Record.Profile
	keys := match.Keys(profile, in.strategy)
	var candidates []match.Candidate
	for _, key := range keys {
		for _, c := range found[key] {
			if c.TakenBy == it.EHRID {
				c.TakenBy = "" // the patient's own link, seen from a pilot
			}
			if !slices.ContainsFunc(candidates, func(known match.Candidate) bool { return known.Profile == c.Profile }) {
				candidates = append(candidates, c)
			}
		}
	}
	d := match.Decide(profile, keys, in.strategy, candidates)
	if d.Outcome == match.Matched && tied(it, candidates[0]) {
		d = match.Decision{Outcome: match.Ambiguous, Candidates: d.Candidates, Reason: "the profile shows another source's version, and neither is the more recent"}
	}
	in.decisions[it.EHRID] = d
	switch d.Outcome {
	case match.Ambiguous:
		it.Outcome, it.ReviewReason, it.Candidates = store.InReview, d.Reason, d.Candidates
		return
	case match.Matched:
		it.Profile, it.MatchedBy = d.Profile, string(in.strategy.By)
	case match.New:
		it.Profile, it.MatchedBy = cura.ProfileID(uuid.NewString()), "new"
		it.MatchSystem, it.MatchKeys = in.strategy.System, keys
	}
	// Whoever comes later with the same identifier finds this patient's profile, taken.
	made := match.Candidate{Profile: it.Profile, TakenBy: it.EHRID}
	for _, key := range keys {
		found[key] = append(slices.DeleteFunc(found[key], func(c match.Candidate) bool { return c.Profile == it.Profile }), made)
	}
}

// tied reports whether a profile shows another patient's version and it can't be told which of the two is newer.
func tied(it *store.Item, c match.Candidate) bool {
	if c.SourceConnection == "" || c.SourceEHRID == it.EHRID {
		return false
	}
	return it.LastUpdated == nil || c.LastUpdated == nil || it.LastUpdated.Equal(*c.LastUpdated)
}
