package activities

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/match"
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
	conn, client, err := a.connect(ctx, in.Target)
	if err != nil {
		return PilotResult{}, err
	}
	shadow, err := a.shadow(ctx, in.Target)
	if err != nil {
		return PilotResult{}, err
	}
	p := &pilot{a: a, in: in, client: client, conn: conn, shadow: shadow}
	slots, err := p.slots(ctx)
	if err != nil {
		return PilotResult{}, err
	}
	var done atomic.Int64
	defer heartbeat(ctx, 2*time.Second, func() any { return done.Load() })()
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
	if len(p.Rejected) > 0 {
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
	conn   store.ConnectionState
	shadow Target
}

// slots are the run's patients: those chosen by ops, else the first that the EHR serves. They are chosen once.
func (p *pilot) slots(ctx context.Context) ([]store.PilotSlot, error) {
	var slots []store.PilotSlot
	err := p.a.store.InOrg(ctx, p.shadow.Org, func(tx *store.Tx) error {
		var err error
		slots, err = tx.PilotPatients(ctx, p.shadow.Connection, p.in.Run)
		return err
	})
	if err != nil || len(slots) > 0 {
		return slots, err
	}
	ids, err := p.choose(ctx)
	if err != nil {
		return nil, err
	}
	err = p.a.store.InOrg(ctx, p.shadow.Org, func(tx *store.Tx) error {
		if err := tx.PurgePilot(ctx, p.shadow.Connection, "a new pilot begins"); err != nil {
			return err
		}
		if err := tx.StartRun(ctx, store.Run{ID: p.in.Run, Connection: p.shadow.Connection, Kind: cura.RunPilot, WorkflowID: p.in.WorkflowID}); err != nil {
			return err
		}
		if err := tx.StartPilot(ctx, p.shadow.Connection, p.in.Run, ids); err != nil {
			return err
		}
		slots, err = tx.PilotPatients(ctx, p.shadow.Connection, p.in.Run)
		return err
	})
	return slots, err
}

func (p *pilot) choose(ctx context.Context) ([]string, error) {
	var ids []string
	err := p.a.store.InOrg(ctx, p.in.Org, func(tx *store.Tx) error {
		var err error
		ids, err = tx.PilotChoices(ctx, p.in.Connection)
		return err
	})
	if err != nil || len(ids) > 0 {
		return ids, err
	}
	err = p.search(ctx, ehr.Query{Type: cura.Patient, Count: p.in.Patients}, func(e fhir.Entry) bool {
		if fhir.IsID(e.ID) {
			ids = append(ids, e.ID)
		}
		return len(ids) < p.in.Patients
	})
	return ids, err
}

// search gives yield each entry of a search, page by page, until it has enough.
func (p *pilot) search(ctx context.Context, query ehr.Query, yield func(fhir.Entry) bool) error {
	for {
		page, wait, err := p.a.fetch(ctx, p.client, query)
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

// previewLines bounds the preview of one resource, and previewResources how many of a type are previewed.
const previewLines = 60

// patient reads one patient whole and writes rows and report in one transaction, as the sandbox org.
func (p *pilot) patient(ctx context.Context, slot store.PilotSlot) (*cura.PilotPatient, error) {
	report := &cura.PilotPatient{Position: slot.Position, Counts: map[cura.ResourceType]cura.Counts{}}
	type part struct {
		pass  store.Pass
		items []store.Item
	}
	var parts []part
	known := map[string]store.LinkState{}
	for _, t := range cura.ResourceTypes() {
		if !p.wants(t) {
			continue
		}
		entries, err := p.entries(ctx, t, slot.EHRID)
		switch {
		case err != nil && TypeOff(fault.KindOf(err)) && t != cura.Patient:
			continue // the endpoint test has switched the type off, or will
		case fault.Is(err, fault.NotFound) && t == cura.Patient:
			report.Match, report.MatchReason = "rejected", "the EHR has no such patient"
		case err != nil:
			return nil, err
		}
		pass := store.Pass{Connection: p.shadow.Connection, Type: t, Run: p.in.Run}
		in := intake{a: p.a, pass: pass, target: p.shadow, live: p.in.Target, strategy: p.conn.Match, base: p.conn.BaseURL, known: known}
		items, err := in.decide(ctx, entries)
		if err != nil {
			return nil, err
		}
		if t == cura.Patient {
			describePatient(report, items, in.decisions)
			for _, it := range items {
				known[it.EHRID] = store.LinkState{Profile: it.Profile, InReview: it.Outcome == store.InReview}
			}
		}
		if err := describe(report, t, items); err != nil {
			return nil, err
		}
		parts = append(parts, part{pass, items})
	}
	err := p.a.store.InOrg(ctx, p.shadow.Org, func(tx *store.Tx) error {
		for _, part := range parts {
			counts, err := tx.ApplyPatient(ctx, part.pass, mappings.Version, part.items)
			if err != nil {
				return err
			}
			report.Counts[part.pass.Type] = counts
		}
		return tx.PutPilotReport(ctx, p.shadow.Connection, *report)
	})
	return report, err
}

func (p *pilot) wants(t cura.ResourceType) bool {
	return slices.Contains(p.conn.Types, t)
}

// entries reads what the EHR has of one patient: the Patient itself by id, the rest by search.
func (p *pilot) entries(ctx context.Context, t cura.ResourceType, patient string) ([]fhir.Entry, error) {
	if t == cura.Patient {
		raw, err := p.client.Read(ctx, t, patient)
		if err != nil {
			return nil, err
		}
		head, err := fhir.Head(raw)
		if err != nil {
			return nil, fault.Wrap("reading a pilot patient", fault.Protocol, "the answer isn't JSON", err)
		}
		hash, err := fhir.Hash(raw)
		if err != nil {
			return nil, fault.Wrap("reading a pilot patient", fault.Protocol, "the answer isn't JSON", err)
		}
		return []fhir.Entry{{
			Resource: raw, Size: int64(len(raw)), Type: head.Type, ID: head.ID, VersionID: head.VersionID,
			LastUpdated: head.LastUpdated, Hash: hash,
		}}, nil
	}
	var entries []fhir.Entry
	err := p.search(ctx, ehr.Query{Type: t, Params: url.Values{"patient": {patient}}}, func(e fhir.Entry) bool {
		entries = append(entries, e)
		return true
	})
	return entries, err
}

// describePatient adds how the Patient was matched, and which required fields are missing.
func describePatient(report *cura.PilotPatient, items []store.Item, decisions map[string]match.Decision) {
	for _, it := range items {
		if d, ok := decisions[it.EHRID]; ok {
			report.Match, report.MatchReason = string(d.Outcome), d.Reason
		} else if it.Outcome == store.Quarantined {
			report.Match, report.MatchReason = "rejected", "the Patient resource was rejected"
		}
		profile := it.Record.Profile
		if profile == nil {
			continue
		}
		if profile.Name == nil {
			report.Missing = append(report.Missing, "profiles.name")
		}
		if profile.BirthDate == nil {
			report.Missing = append(report.Missing, "profiles.birth_date")
		}
		if profile.Gender == "" {
			report.Missing = append(report.Missing, "profiles.gender")
		}
	}
}

// describe adds the rejections of a type to the report, and the preview of its first resource.
func describe(report *cura.PilotPatient, t cura.ResourceType, items []store.Item) error {
	previewed := false
	for _, it := range items {
		for _, r := range it.Reasons {
			report.Rejected = append(report.Rejected, fmt.Sprintf("%s %s", r.Path, r.Text))
		}
		if previewed || it.Raw == nil || (it.Outcome != store.Stored && it.Outcome != store.InReview) {
			continue
		}
		previewed = true
		lines, err := mappings.Preview(it.Raw)
		if err != nil {
			return fault.Wrap("previewing a pilot patient", fault.Data, "a mapped "+string(t)+" can't be previewed", err)
		}
		for _, l := range lines[:min(len(lines), previewLines)] {
			report.Preview = append(report.Preview, cura.PreviewLine(l))
		}
	}
	return nil
}

// PurgeInput says whose pilot is purged, and why.
type PurgeInput struct {
	Target
	Why string `json:"why"`
}

// PurgePilot deletes all pilot data of a connection from the sandbox org.
func (a *Activities) PurgePilot(ctx context.Context, in PurgeInput) error {
	shadow, err := a.shadow(ctx, in.Target)
	if err != nil {
		return temporalError(ctx, err)
	}
	err = a.store.InOrg(ctx, shadow.Org, func(tx *store.Tx) error { return tx.PurgePilot(ctx, shadow.Connection, in.Why) })
	return temporalError(ctx, err)
}
