package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// PilotInput says what to pilot: patients of the live connection, written to the shadow connection of the sandbox org.
type PilotInput struct {
	Target
	Run        string `json:"run"`
	WorkflowID string `json:"workflow_id"`
	Patients   int    `json:"patients"`
}

// PilotResult is the pilot in numbers; the report per patient is in the sandbox org.
type PilotResult struct {
	Wanted    int                               `json:"wanted"`
	Patients  int                               `json:"patients"`
	Clean     int                               `json:"clean"`
	Matched   int                               `json:"matched"`
	New       int                               `json:"new"`
	Ambiguous int                               `json:"ambiguous"`
	Rejected  int                               `json:"rejected"`
	Missing   int                               `json:"missing"`
	Counts    map[cura.ResourceType]cura.Counts `json:"counts"`
}

// RunPilot reads the pilot's patients whole and keeps a report on each. Called again for the same run it goes on with
// the patients that aren't done.
func (a *Activities) RunPilot(ctx context.Context, in PilotInput) (PilotResult, error) {
	result, err := a.runPilot(ctx, in)
	return result, temporalError(ctx, err)
}

func (a *Activities) runPilot(ctx context.Context, in PilotInput) (PilotResult, error) {
	conn, open, err := a.connect(ctx, in.Target)
	if err != nil {
		return PilotResult{}, err
	}
	shadow, err := a.shadow(ctx, in.Target)
	if err != nil {
		return PilotResult{}, err
	}
	overrides, err := a.overrides(ctx, conn)
	if err != nil {
		return PilotResult{}, err
	}
	p := &pilot{a: a, in: in, client: open.client, vendor: open.profile, conn: conn, shadow: shadow, overrides: overrides}
	slots, err := p.slots(ctx)
	if err != nil {
		return PilotResult{}, err
	}
	var done atomic.Int64
	defer heartbeat(ctx, func() any { return done.Load() })()
	result := PilotResult{Wanted: in.Patients, Counts: map[cura.ResourceType]cura.Counts{}}
	for _, slot := range slots {
		report := slot.Report
		if !slot.Done {
			if report, err = p.patient(ctx, slot); err != nil {
				return PilotResult{}, err
			}
			failpoint.Reach(failpoint.PilotPatient)
		}
		result.add(*report)
		done.Add(1)
	}
	return result, nil
}

// shadow finds the sandbox org's stand-in for a live connection.
func (a *Activities) shadow(ctx context.Context, live Target) (Target, error) {
	org, err := a.store.SandboxOf(ctx, live.Org)
	if err != nil {
		return Target{}, err
	}
	shadow := Target{Org: org}
	err = a.store.InOrg(ctx, org, func(tx *store.Tx) error {
		c, err := tx.ShadowOf(ctx, live.Connection)
		shadow.Connection = c.ID
		return err
	})
	return shadow, err
}

func (r *PilotResult) add(p cura.PilotPatient) {
	r.Patients++
	if p.Clean() {
		r.Clean++
	}
	switch p.Match {
	case string(match.Matched):
		r.Matched++
	case string(match.New):
		r.New++
	case string(match.Ambiguous):
		r.Ambiguous++
	}
	if p.Match == rejected || len(p.Rejected) > 0 {
		r.Rejected++
	}
	if len(p.Missing) > 0 {
		r.Missing++
	}
	for t, c := range p.Counts {
		r.Counts[t] = r.Counts[t].Plus(c)
	}
}

type pilot struct {
	a      *Activities
	in     PilotInput
	client *ehr.Client
	vendor *profile.Profile
	conn   store.ConnectionState
	shadow Target
	// overrides are the live connection's: what the pilot shows is what will be.
	overrides *mappings.Overrides
}

// search gives yield each entry of a search, page by page, until it has enough.
func (p *pilot) search(ctx context.Context, query ehr.Query, yield func(fhir.Entry) bool) error {
	for {
		page, wait, err := p.a.fetch(ctx, p.client, query, p.a.cfg.RetryAttempts)
		if err != nil {
			return err
		}
		if wait > 0 {
			return fault.New("piloting", fault.Throttled, "the EHR asks for a pause").After(wait)
		}
		for _, e := range page.Entries {
			if !yield(e) {
				return nil
			}
		}
		if page.Next == "" {
			return nil
		}
		query.Next = page.Next
	}
}

// Bounds of what one patient's report is made of.
const (
	// previewLines bounds the preview of a type, which shows its first resource.
	previewLines = 60
	// maxEntries bounds how many resources of a type are read: they are all in memory at once.
	maxEntries = 2000
)

// rejected is the cura.PilotPatient.Match of a patient of whom nothing can be taken.
const rejected = "rejected"

// part is what was read of one patient in one type.
type part struct {
	pass      store.Pass
	items     []store.Item
	decisions map[string]match.Decision
}

// patient reads one patient whole and writes rows and report in one transaction, as the sandbox org.
func (p *pilot) patient(ctx context.Context, slot store.PilotSlot) (*cura.PilotPatient, error) {
	report := &cura.PilotPatient{Position: slot.Position, Counts: map[cura.ResourceType]cura.Counts{}}
	parts, err := p.read(ctx, slot.EHRID, report)
	if err != nil {
		return nil, err
	}
	err = p.write(ctx, report, parts)
	if fault.Is(err, fault.Data) {
		// Not even setting aside what the tables refuse has helped: the report alone is kept.
		report = &cura.PilotPatient{
			Position: slot.Position, Counts: map[cura.ResourceType]cura.Counts{}, Match: rejected, MatchReason: fault.Public(err),
		}
		err = p.write(ctx, report, nil)
	}
	return report, err
}

// read gets a patient's resources and decides what becomes of each. What is odd about this patient alone goes into the
// report, for the others to be piloted all the same; the error is what stops them too.
func (p *pilot) read(ctx context.Context, patient string, report *cura.PilotPatient) ([]part, error) {
	var parts []part
	known := map[string]store.LinkState{}
	var withheld []cura.ResourceType
	for _, t := range p.types() {
		if !p.wants(t) || slices.Contains(withheld, t) {
			continue
		}
		entries, more, err := p.entries(ctx, t, patient)
		switch kind := fault.KindOf(err); {
		case err == nil:
		case t == cura.Patient && kind == fault.NotFound:
			report.Match, report.MatchReason = rejected, "the EHR has no such patient"
			return nil, nil
		case t == cura.Patient && ofPatient(kind):
			report.Match, report.MatchReason = rejected, fault.Public(err)
			return nil, nil
		case t == cura.Consent && kind != fault.Unsupported && store.ConsentScoped(p.conn.PullConsent, cura.Observation):
			report.Rejected = append(report.Rejected, "Consent can't be read, so no clinical type is: "+fault.Public(err))
			return parts, nil
		case t != cura.Patient && TypeOff(kind):
			continue // the endpoint test has switched the type off, or will
		case ofPatient(kind), t != cura.Patient && kind == fault.Transient:
			// The EHR has just given the Patient, so it is up: it is this search that it can't answer.
			report.Rejected = append(report.Rejected, string(t)+" can't be read: "+fault.Public(err))
			continue
		default:
			return nil, err
		}
		if more {
			report.Notes = append(report.Notes, fmt.Sprintf("%s: the EHR has more than %d; the pilot has read no further", t, maxEntries))
		}
		pass := store.Pass{Connection: p.shadow.Connection, Type: t, Run: p.in.Run}
		in := intake{a: p.a, pass: pass, target: p.shadow, live: p.in.Target, strategy: p.conn.Match, base: p.conn.BaseURL, known: known, overrides: p.overrides}
		items, err := in.decide(ctx, entries)
		if err != nil {
			return nil, err
		}
		if t == cura.Patient {
			p.ownProfiles(items, in.decisions)
			for _, it := range items {
				known[it.EHRID] = store.LinkState{Profile: it.Profile, InReview: it.Outcome == store.InReview}
			}
		}
		parts = append(parts, part{pass, items, in.decisions})
		if t == cura.Patient || t == cura.Consent {
			if withheld, err = p.withheld(ctx, parts); err != nil {
				return nil, err
			}
		}
	}
	if len(withheld) > 0 {
		report.Notes = append(report.Notes, fmt.Sprintf("%d clinical types aren't read, by the patient's consents", len(withheld)))
	}
	return parts, nil
}

// ofPatient reports whether a fault of this kind is about the one patient that was asked for, and not about the connection.
func ofPatient(kind fault.Kind) bool {
	return kind == fault.Data || kind == fault.Protocol || kind == fault.NotFound
}

// ownProfiles gives patients that matched a live profile one of this shadow's own to be written to, the same each time. Two
// connections of an org can pilot the same person, and each must be purged without the other.
func (p *pilot) ownProfiles(items []store.Item, decisions map[string]match.Decision) {
	for i := range items {
		it := &items[i]
		// One that was linked before has its own already.
		if it.MatchedBy != "" && decisions[it.EHRID].Outcome == match.Matched {
			name := string(p.shadow.Connection) + "/" + string(it.Profile)
			it.Profile = cura.ProfileID(uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String())
		}
	}
}

// write keeps what was read of a patient, and the report, to which it adds what became of each resource.
func (p *pilot) write(ctx context.Context, report *cura.PilotPatient, parts []part) error {
	return p.a.store.InOrg(ctx, p.shadow.Org, func(tx *store.Tx) error {
		unlinked := map[string]bool{}
		for _, part := range parts {
			part.orphan(unlinked)
			counts, refused, err := tx.TryPatient(ctx, part.pass, p.overrides.Version(), part.items)
			if err == nil && len(refused) > 0 {
				part.setAside(refused, unlinked)
				counts, err = tx.ApplyPatient(ctx, part.pass, p.overrides.Version(), part.items)
			}
			if err != nil {
				return err
			}
			report.Counts[part.pass.Type] = counts
			part.describe(report, p.overrides)
		}
		return tx.PutPilotReport(ctx, p.shadow.Connection, *report)
	})
}

// setAside quarantines what the tables can't hold. A patient among it has no profile that others could be tied to.
func (p part) setAside(refused []int, unlinked map[string]bool) {
	for _, i := range refused {
		it := &p.items[i]
		it.Outcome = store.Quarantined
		it.Reasons = []store.Reason{{Path: string(p.pass.Type), Text: "has a value that the database can't hold"}}
		if p.pass.Type == cura.Patient {
			unlinked[it.EHRID] = true
		}
	}
}

// orphan sets aside the resources of patients that have been set aside themselves.
func (p part) orphan(unlinked map[string]bool) {
	for i := range p.items {
		it := &p.items[i]
		if p.pass.Type != cura.Patient && it.Outcome == store.Stored && unlinked[it.Record.PatientEHRID] {
			it.Outcome, it.WaitsForPatient = store.Quarantined, it.Record.PatientEHRID
			it.Reasons = []store.Reason{{Path: string(p.pass.Type) + ".subject", Text: "refers to a patient who was set aside"}}
		}
	}
}

func (p *pilot) wants(t cura.ResourceType) bool {
	return slices.Contains(p.conn.Types, t)
}

// entries reads what the EHR has of one patient: the Patient itself by id, the rest by search. With more there is more than
// maxEntries.
func (p *pilot) entries(ctx context.Context, t cura.ResourceType, patient string) (entries []fhir.Entry, more bool, err error) {
	if t == cura.Patient {
		raw, err := p.client.Read(ctx, t, patient)
		if err != nil {
			return nil, false, err
		}
		head, err := fhir.Head(raw)
		if err != nil {
			return nil, false, fault.Wrap("reading a pilot patient", fault.Protocol, "the answer isn't JSON", err)
		}
		hash, err := fhir.Hash(raw)
		if err != nil {
			return nil, false, fault.Wrap("reading a pilot patient", fault.Protocol, "the answer isn't JSON", err)
		}
		return []fhir.Entry{{
			Resource: raw, Size: int64(len(raw)), Type: head.Type, ID: head.ID, VersionID: head.VersionID,
			LastUpdated: head.LastUpdated, Hash: hash,
		}}, false, nil
	}
	choice, rules, err := p.a.strategy(ctx, p.conn, p.vendor, t)
	if err != nil {
		return nil, false, err
	}
	for _, params := range rules.Slices(choice.NotOffered) {
		params.Set("patient", patient)
		err = p.search(ctx, ehr.Query{Type: t, Params: params, Count: rules.PageSize}, func(e fhir.Entry) bool {
			if more = len(entries) == maxEntries; !more {
				entries = append(entries, e)
			}
			return !more
		})
		if errors.Is(err, ehr.ErrRefused) && params.Has("category") {
			err = nil // the pull notes which categories aren't offered
		}
		if err != nil || more {
			break
		}
	}
	return entries, more, err
}

// PurgeInput says whose pilot is purged, and why.
type PurgeInput struct {
	Target
	Why string `json:"why"`
}

// PurgePilot deletes all pilot data of a connection from the sandbox org, and the choice of patients from the live one. A
// shadow that isn't there is as good as purged.
func (a *Activities) PurgePilot(ctx context.Context, in PurgeInput) error {
	return temporalError(ctx, a.purgePilot(ctx, in))
}

func (a *Activities) purgePilot(ctx context.Context, in PurgeInput) error {
	shadow, err := a.shadow(ctx, in.Target)
	if err == nil {
		err = a.store.InOrg(ctx, shadow.Org, func(tx *store.Tx) error { return tx.PurgePilot(ctx, shadow.Connection, in.Why) })
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error { return tx.ClearPilotChoices(ctx, in.Connection) })
}
