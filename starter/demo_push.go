package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
)

// deliverySummary is what the demo's pushes came to.
type deliverySummary struct {
	Confirmed          int `json:"confirmed"`
	CancelledByConsent int `json:"cancelled_by_consent"`
	// ArrivedAfterRevocation counts, by the EHR's own log, what it was sent of the patient after the revocation was effective,
	// but for the event that tells of it.
	ArrivedAfterRevocation int `json:"arrived_after_revocation"`
	// HaltMS and EffectiveMS are from the revoke command's beginning to when nothing was let through any more, and to when the
	// revocation was effective.
	HaltMS      float64 `json:"halt_ms"`
	EffectiveMS float64 `json:"effective_ms"`
}

// queuedNotes is how many notes wait when the demo's consent is revoked; the EHR takes demoLatency for each.
const (
	queuedNotes = 8
	demoLatency = 400 * time.Millisecond
)

// pushPatient is whom the demo pushes for: a patient with an encounter, if there is one.
type pushPatient struct {
	EHRID, Encounter string
	Link             string
	Profile          cura.ProfileID
}

// push grants consent, pushes a note and codes, revokes with notes queued, and counts what left.
func (m *demo) push(ctx context.Context) (*deliverySummary, error) {
	patient, err := m.choosePatient(ctx)
	if err != nil || patient == nil {
		return nil, err
	}
	org, _, _ := strings.Cut(demoRef, "/")
	if err := m.command(ctx, "consent", "grant", string(patient.Profile), "--org", org); err != nil {
		return nil, err
	}
	version, err := m.nextVersion(ctx, *patient)
	if err != nil {
		return nil, err
	}
	first := artefactsOf(*patient, version)
	if err := m.replace(ctx, *patient, first); err != nil {
		return nil, err
	}
	if err := m.add(ctx, *patient, first); err != nil {
		return nil, err
	}
	if err := m.delivered(ctx, *patient); err != nil {
		return nil, err
	}
	faults := m.sandbox.Faults()
	slow := faults
	slow.Writes = sandbox.WriteFaults{LatencyMS: int(demoLatency.Milliseconds())}
	if err := m.sandbox.SetFaults(slow); err != nil {
		return nil, err
	}
	defer func() { _ = m.sandbox.SetFaults(faults) }() // they were valid before
	m.tell("\n  The EHR now takes %s for each write, so that notes are queued when consent is revoked.", demoLatency)
	var notes []cura.Artefact
	for n := range queuedNotes {
		note := demoNote(*patient, fmt.Sprintf("demo-queued-%d-%s", n+1, patient.Link), version)
		notes = append(notes, note)
	}
	if err := m.add(ctx, *patient, notes); err != nil {
		return nil, err
	}
	if err := m.begun(ctx, *patient, notes); err != nil {
		return nil, err
	}
	out, err := m.capture(ctx, "--output", "json", "consent", "revoke", string(patient.Profile), "--org", org)
	if err != nil {
		return nil, err
	}
	var revoked struct {
		HaltMS      float64   `json:"halt_ms"`
		EffectiveMS float64   `json:"effective_ms"`
		EffectiveAt time.Time `json:"effective_at"`
	}
	if err := json.Unmarshal([]byte(out), &revoked); err != nil {
		return nil, fmt.Errorf("reading what consent revoke printed: %w", err)
	}
	m.tell("  Halted after %.0f ms, effective after %.0f ms.", revoked.HaltMS, revoked.EffectiveMS)
	if err := m.delivered(ctx, *patient); err != nil {
		return nil, err
	}
	s := &deliverySummary{HaltMS: revoked.HaltMS, EffectiveMS: revoked.EffectiveMS}
	if err := m.countPushes(ctx, *patient, version, s); err != nil {
		return nil, err
	}
	for _, a := range m.sandbox.Arrivals() {
		if a.Patient == patient.EHRID && a.Type != "Consent" && a.At.After(revoked.EffectiveAt) {
			s.ArrivedAfterRevocation++
		}
	}
	return s, m.command(ctx, "push", "list", demoRef, "--patient", string(patient.Profile), "--limit", "12")
}

// choosePatient finds a patient whom a grant lets be pushed for; nil: there is none. One with an encounter comes first.
func (m *demo) choosePatient(ctx context.Context) (*pushPatient, error) {
	var source bytes.Buffer
	if err := m.sandbox.Source(&source); err != nil {
		return nil, fmt.Errorf("reading the EHR's data: %w", err)
	}
	var all []pushPatient
	for line := range bytes.Lines(source.Bytes()) {
		var r struct {
			ResourceType string `json:"resourceType"`
			ID           string `json:"id"`
			Subject      struct {
				Reference string `json:"reference"`
			} `json:"subject"`
		}
		if json.Unmarshal(line, &r) != nil {
			continue // a malformed resource is what the sandbox is for
		}
		switch r.ResourceType {
		case "Encounter":
			if id, ok := strings.CutPrefix(r.Subject.Reference, "Patient/"); ok {
				all = append(all, pushPatient{EHRID: id, Encounter: r.ID})
			}
		case "Patient":
			all = append(all, pushPatient{EHRID: r.ID})
		}
	}
	slices.SortStableFunc(all, func(a, b pushPatient) int { return len(min(b.Encounter, "x")) - len(min(a.Encounter, "x")) })
	for _, p := range all {
		fit, err := m.fits(ctx, &p)
		if err != nil {
			return nil, err
		}
		if fit {
			return &p, nil
		}
	}
	return nil, nil //nolint:nilnil // data without a patient who may be pushed for is an answer
}

// fits reports whether Cura knows the patient, and the encounter, and a grant would permit a note.
func (m *demo) fits(ctx context.Context, p *pushPatient) (fit bool, err error) {
	err = m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
		if p.Link, p.Profile, err = tx.LinkOf(ctx, m.listed.Connection, p.EHRID); err != nil {
			return err
		}
		if p.Encounter != "" {
			if known, err := tx.HasEncounter(ctx, m.listed.Connection, p.Profile, p.Encounter); err != nil || !known {
				return err
			}
		}
		log, err := tx.ConsentLog(ctx, p.Profile)
		if err != nil {
			return err
		}
		var pulled []store.ConsentEntry
		for _, e := range log {
			if e.Source == "ehr" {
				pulled = append(pulled, e)
			}
		}
		granted := append(store.StandingConsents(pulled), consent.Consent{ID: "0", Source: "cura", Entry: consent.Grant(consent.Terms{})})
		fit = gate.Permits(demoNote(*p, "demo", 1), cura.DefaultOrgPolicy(), granted, time.Now()).Allow
		return nil
	})
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return fit, err
}

// nextVersion is the version that this run's artefacts have: one more than the last run's.
func (m *demo) nextVersion(ctx context.Context, p pushPatient) (version int, err error) {
	err = m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
		items, err := tx.Items(ctx, store.ItemFilter{Connection: m.listed.Connection, Profile: p.Profile, Limit: 1000})
		for _, item := range items {
			if strings.HasPrefix(item.Artefact.ID, "demo-") {
				version = max(version, item.Artefact.Version)
			}
		}
		return err
	})
	return version + 1, err
}

func demoNote(p pushPatient, id string, version int) cura.Artefact {
	return cura.Artefact{
		Kind: cura.Note, ID: id, Version: version, Author: cura.Author{Name: "Dr. Ada Demo", Role: cura.RoleClinician}, EncounterEHRID: p.Encounter,
		AuthoredAt: time.Now().Add(-time.Minute).UTC(),
		Note: &cura.NoteContent{
			Type: "11506-3", Title: "Progress note", ContentType: "text/plain", Text: fmt.Sprintf("Version %d of a note of the demo.", version),
		},
	}
}

// artefacts are a note, a diagnosis and a procedure.
func artefactsOf(p pushPatient, version int) []cura.Artefact {
	diagnosis, procedure := demoNote(p, "demo-diagnosis-"+p.Link, version), demoNote(p, "demo-procedure-"+p.Link, version)
	diagnosis.Kind, diagnosis.Note = cura.Diagnosis, nil
	diagnosis.Diagnosis = &cura.DiagnosisContent{
		Code:     cura.Concept{Codings: []cura.Coding{{System: "http://hl7.org/fhir/sid/icd-10-cm", Code: "J06.9", Display: "Acute upper respiratory infection, unspecified"}}},
		Category: "problem-list-item", ClinicalStatus: "active", VerificationStatus: "confirmed",
	}
	procedure.Kind, procedure.Note = cura.Procedure, nil
	procedure.Procedure = &cura.ProcedureContent{
		Code:   cura.Concept{Codings: []cura.Coding{{System: "http://www.ama-assn.org/go/cpt", Code: "99213", Display: "Office visit"}}},
		Status: "completed", Performed: time.Now().UTC().Add(-time.Hour).Format(time.RFC3339),
	}
	return []cura.Artefact{demoNote(p, "demo-note-"+p.Link, version), diagnosis, procedure}
}

// replace has artefacts replace the versions before, where the EHR has those.
func (m *demo) replace(ctx context.Context, p pushPatient, artefacts []cura.Artefact) error {
	delivered, err := m.items(ctx, p, cura.ItemDelivered)
	for i := range artefacts {
		a := &artefacts[i]
		if slices.ContainsFunc(delivered, func(d store.OutboxItem) bool { return d.Artefact.ID == a.ID && d.Artefact.Version == a.Version-1 }) {
			a.Replaces = a.Version - 1
		}
	}
	return err
}

// add queues artefacts as ops would: from a file.
func (m *demo) add(ctx context.Context, p pushPatient, artefacts []cura.Artefact) error {
	var lines bytes.Buffer
	for _, a := range artefacts {
		text, err := json.Marshal(struct {
			Patient string `json:"patient"`
			cura.Artefact
		}{string(p.Profile), a})
		if err != nil {
			return fmt.Errorf("writing an artefact: %w", err)
		}
		lines.Write(append(text, '\n'))
	}
	if err := os.WriteFile(filepath.Join(m.dir, "artefacts.ndjson"), lines.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing the artefacts: %w", err)
	}
	return m.command(ctx, "push", "add", demoRef, filepath.Join(m.shown, "artefacts.ndjson"))
}

// items are the patient's items in the states.
func (m *demo) items(ctx context.Context, p pushPatient, states ...cura.ItemState) (items []store.OutboxItem, err error) {
	err = m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
		items, err = tx.Items(ctx, store.ItemFilter{Connection: m.listed.Connection, Profile: p.Profile, States: states, Limit: 1000})
		return err
	})
	return items, err
}

// delivered waits until nothing of the patient is queued or on its way.
func (m *demo) delivered(ctx context.Context, p pushPatient) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the demo's pushes didn't come to an end within a minute: see starter push list "+demoRef))
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		left, err := m.items(ctx, p, cura.ItemQueued, cura.ItemSending)
		return len(left) == 0, err
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// begun waits until the first of the notes has left.
func (m *demo) begun(ctx context.Context, p pushPatient, notes []cura.Artefact) error {
	return poll(ctx, func() (bool, error) {
		done, err := m.items(ctx, p, cura.ItemDelivered, cura.ItemHeld, cura.ItemDenied, cura.ItemReview, cura.ItemRejected)
		return slices.ContainsFunc(done, func(i store.OutboxItem) bool {
			return i.Artefact.ID == notes[0].ID && i.Artefact.Version == notes[0].Version
		}), err
	})
}

// countPushes counts what became of this run's artefacts.
func (m *demo) countPushes(ctx context.Context, p pushPatient, version int, s *deliverySummary) error {
	items, err := m.items(ctx, p)
	for _, item := range items {
		if !strings.HasPrefix(item.Artefact.ID, "demo-") || item.Artefact.Version != version {
			continue
		}
		switch item.State { //nolint:exhaustive // the others are neither
		case cura.ItemDelivered:
			s.Confirmed++
		case cura.ItemCancelled:
			s.CancelledByConsent++
		}
	}
	return err
}
