package activities

import (
	"context"
	"slices"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/store"
)

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

// choose gives the EHR ids of the patients to pilot, each once.
func (p *pilot) choose(ctx context.Context) ([]string, error) {
	var ids []string
	add := func(id string) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	var chosen []string
	err := p.a.store.InOrg(ctx, p.in.Org, func(tx *store.Tx) error {
		var err error
		chosen, err = tx.PilotChoices(ctx, p.in.Connection)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, id := range chosen {
		add(id)
	}
	if len(ids) > 0 {
		return ids, nil
	}
	choice, _, err := p.a.strategy(ctx, p.conn, p.vendor, cura.Patient)
	if err != nil {
		return nil, err
	}
	if choice.Strategy.ByPatient() {
		return p.chooseFromRoster(ctx)
	}
	err = p.search(ctx, ehr.Query{Type: cura.Patient, Count: p.in.Patients}, func(e fhir.Entry) bool {
		if fhir.IsID(e.ID) {
			add(e.ID)
		}
		return len(ids) < p.in.Patients
	})
	return ids, err
}

// chooseFromRoster gives the first members of the roster: an EHR that is read patient by patient lists nobody.
func (p *pilot) chooseFromRoster(ctx context.Context) ([]string, error) {
	if _, err := p.a.refreshRoster(ctx, p.in.Target); err != nil {
		return nil, err
	}
	var ids []string
	err := p.a.store.InOrg(ctx, p.in.Org, func(tx *store.Tx) error {
		members, err := tx.Members(ctx, p.in.Connection, "", p.in.Patients)
		for _, m := range members {
			ids = append(ids, m.EHRID)
		}
		return err
	})
	if err == nil && len(ids) == 0 {
		return nil, fault.New("choosing pilot patients", fault.Config, "the connection is read patient by patient, and its roster is empty").
			WithFix("Say whom to follow: starter roster enrol, upload or group; starter roster show tells what became of them")
	}
	return ids, err
}
