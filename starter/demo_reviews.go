package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// reviewSummary counts what this run put before a person, and what that person decided.
type reviewSummary struct {
	Opened   int `json:"opened"`
	Resolved int `json:"resolved"`
}

// reviewPatient is a patient whom Cura has.
type reviewPatient struct {
	resource map[string]any
	profile  cura.ProfileID
}

// review has the EHR do what a machine must not decide about, and decides it with the commands that a person would type: a second
// record with a number that another patient has, the merge of the two, and a version that may be older than what Cura has changed.
func (m *demo) review(ctx context.Context) (*reviewSummary, error) {
	patients, err := m.reviewPatients(ctx)
	if err != nil || len(patients) < 2 {
		return nil, err
	}
	kept, changed := patients[0], patients[1]
	var opened []string
	decide := func(kind cura.ReviewKind, decision ...string) error {
		id, err := m.openReview(ctx, kind)
		if err != nil {
			return err
		}
		opened = append(opened, id)
		return m.command(ctx, append([]string{"reviews", "resolve", id}, decision...)...)
	}

	m.tell("\n  The EHR has a second record with a patient's number. The machine doesn't guess whose it is.")
	double := maps.Clone(kept.resource)
	double["id"] = fmt.Sprintf("demo-double-%d", m.began.Unix())
	if err := m.put(double); err != nil {
		return nil, err
	}
	if err := m.sync(ctx); err != nil {
		return nil, err
	}
	if err := decide(cura.ReviewMatch, "--new"); err != nil {
		return nil, err
	}

	m.tell("\n  The hospital merges the two records. And Cura changes another patient's phone number while the EHR changes it too, and doesn't say when.")
	double["active"] = false
	double["link"] = []any{map[string]any{"type": "replaced-by", "other": map[string]any{"reference": "Patient/" + kept.id()}}}
	if err := m.put(double); err != nil {
		return nil, err
	}
	org, _, _ := strings.Cut(demoRef, "/")
	number := fmt.Sprintf("+1-555-%07d", m.began.Unix()%10_000_000)
	if err := m.command(ctx, "profile", "set", org, string(changed.profile), "--phone", number); err != nil {
		return nil, err
	}
	faults := m.sandbox.Faults()
	untimed := faults
	untimed.Untimed = []string{"Patient/" + changed.id()}
	if err := m.sandbox.SetFaults(untimed); err != nil {
		return nil, err
	}
	defer func() { _ = m.sandbox.SetFaults(faults) }() // they were valid before
	changed.resource["telecom"] = []any{map[string]any{"system": "phone", "value": number + "0", "use": "home"}}
	if err := m.put(changed.resource); err != nil {
		return nil, err
	}
	if err := m.sync(ctx); err != nil {
		return nil, err
	}
	if err := m.command(ctx, "reviews", "list", demoRef); err != nil {
		return nil, err
	}
	if err := decide(cura.ReviewMerge, "--merge"); err != nil {
		return nil, err
	}
	if err := decide(cura.ReviewConflict, "--keep", "ehr"); err != nil {
		return nil, err
	}
	// What was merged away isn't there for the next run, which begins anew.
	if err := m.sandbox.Delete(string(cura.Patient), fmt.Sprint(double["id"])); err != nil {
		return nil, fmt.Errorf("taking back what was changed at the EHR: %w", err)
	}
	return m.countReviews(ctx, opened)
}

func (p reviewPatient) id() string { return fmt.Sprint(p.resource["id"]) }

// reviewPatients are the first two patients of the EHR's whom Cura shows as they are there, with a number to be found by.
func (m *demo) reviewPatients(ctx context.Context) (patients []reviewPatient, err error) {
	var source bytes.Buffer
	if err := m.sandbox.Source(&source); err != nil {
		return nil, fmt.Errorf("reading the EHR's data: %w", err)
	}
	for line := range bytes.Lines(source.Bytes()) {
		var p reviewPatient
		if json.Unmarshal(line, &p.resource) != nil || p.resource["resourceType"] != string(cura.Patient) || !bytes.Contains(line, []byte(`"identifier"`)) ||
			p.resource["birthDate"] == nil || p.resource["active"] == false {
			continue
		}
		err := m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
			links, err := tx.Patients(ctx, m.listed.Connection, []string{p.id()})
			if err != nil || links[p.id()].ReplacedBy != "" || links[p.id()].InReview {
				return err
			}
			p.profile = links[p.id()].Profile
			return nil
		})
		if err != nil {
			return nil, err
		}
		if p.profile == "" {
			continue
		}
		if patients = append(patients, p); len(patients) == 2 {
			break
		}
	}
	return patients, nil
}

// put has the EHR take a resource.
func (m *demo) put(resource map[string]any) error {
	raw, err := json.Marshal(resource)
	if err != nil {
		return fmt.Errorf("writing a resource: %w", err)
	}
	if err := m.sandbox.Put(raw); err != nil {
		return fmt.Errorf("changing the EHR's data: %w", err)
	}
	return nil
}

// sync brings in what was changed.
func (m *demo) sync(ctx context.Context) error { return m.command(ctx, "sync", demoRef) }

// openReview finds the review of a kind that this run has opened, and waits for it: the schedule may be bringing it.
func (m *demo) openReview(ctx context.Context, kind cura.ReviewKind) (id string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fault.Newf("waiting for a review", fault.Unavailable, "none of kind %s came within a minute", kind).
		WithFix("See: starter reviews list "+demoRef+" --all"))
	defer cancel()
	err = poll(ctx, func() (bool, error) {
		err := m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
			reviews, err := tx.Reviews(ctx, store.ReviewFilter{Connection: m.listed.Connection, Kind: kind, Open: true})
			for _, r := range reviews {
				if r.OpenedAt.After(m.began) && r.State == store.ReviewOpen {
					id = r.ID
				}
			}
			return err
		})
		return id != "", err
	})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return "", context.Cause(ctx)
	}
	return id, err
}

// countReviews counts which of the reviews have been decided, and the decision applied.
func (m *demo) countReviews(ctx context.Context, ids []string) (*reviewSummary, error) {
	s := &reviewSummary{Opened: len(ids)}
	err := m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
		for _, id := range ids {
			r, err := tx.Review(ctx, id)
			if err != nil {
				return err
			}
			if r.State == store.ReviewApplied {
				s.Resolved++
			}
		}
		return nil
	})
	return s, err
}
