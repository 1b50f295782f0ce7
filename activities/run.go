package activities

import (
	"context"
	"maps"
	"slices"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// BeginInput opens a run.
type BeginInput struct {
	Target
	Run        string       `json:"run"`
	Kind       cura.RunKind `json:"kind"`
	WorkflowID string       `json:"workflow_id"`
	// Types narrows the run; empty: all of the connection's.
	Types []cura.ResourceType `json:"types,omitempty"`
}

// BeginResult says what the run has to read.
type BeginResult struct {
	// Types in the order of reading: Patient first. Those that an operator has paused are left out.
	Types []cura.ResourceType `json:"types"`
	// Paused are the types that are left out.
	Paused []cura.ResourceType `json:"paused,omitempty"`
	// ByPatient says that some type is read patient by patient, so that the roster must be looked after first.
	ByPatient bool `json:"by_patient,omitempty"`
	// ConsentFirst says that Consent must be read before the clinical types, since it says whose may be read.
	ConsentFirst bool `json:"consent_first,omitempty"`
}

// BeginRun records that a run has begun. Types that are switched off are read too: that is how they are probed.
func (a *Activities) BeginRun(ctx context.Context, in BeginInput) (BeginResult, error) {
	var result BeginResult
	var conn store.ConnectionState
	err := a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		var err error
		conn, err = tx.Connection(ctx, in.Connection)
		return err
	})
	if err != nil {
		return result, temporalError(ctx, err)
	}
	result.ConsentFirst = slices.Contains(conn.Types, cura.Consent) && conn.PullConsent != "" && conn.PullConsent != cura.PullConsentNone
	vendor, vendorErr := vendorOf(conn.Connection) // a broken profile is told by the reading of each type
	for _, t := range cura.ResourceTypes() {
		if !slices.Contains(conn.Types, t) || len(in.Types) > 0 && !slices.Contains(in.Types, t) {
			continue
		}
		paused, err := a.paused(ctx, in.Target, t)
		if err != nil {
			return result, temporalError(ctx, err)
		}
		if paused && in.Kind != cura.RunBackfill {
			result.Paused = append(result.Paused, t)
			continue
		}
		result.Types = append(result.Types, t)
		if vendorErr != nil {
			continue
		}
		choice, _, err := a.strategy(ctx, conn, vendor, t)
		if err == nil && choice.Strategy.ByPatient() {
			result.ByPatient = true
		}
	}
	err = a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		return tx.StartRun(ctx, store.Run{ID: in.Run, Connection: in.Connection, Kind: in.Kind, WorkflowID: in.WorkflowID})
	})
	return result, temporalError(ctx, err)
}

// paused reports whether an operator has paused a type, or the whole connection.
func (a *Activities) paused(ctx context.Context, t Target, typ cura.ResourceType) (bool, error) {
	paused := false
	err := a.store.InOrg(ctx, t.Org, func(tx *store.Tx) error {
		pause, err := tx.Paused(ctx, t.Connection, typ)
		paused = pause != nil
		return err
	})
	return paused, err
}

// GiveUpInput says what a run couldn't read.
type GiveUpInput struct {
	Target
	Run     string            `json:"run"`
	Type    cura.ResourceType `json:"type"`
	Details Details           `json:"details"`
}

// GiveUp keeps what a run couldn't read for people: a forbidden type is switched off, anything else becomes a dead letter
// that holds the watermark of its type.
func (a *Activities) GiveUp(ctx context.Context, in GiveUpInput) error {
	err := a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		if TypeOff(in.Details.Kind) {
			return tx.SwitchTypeOff(ctx, in.Connection, in.Type, in.Details.Detail)
		}
		_, err := tx.OpenDeadLetter(ctx, store.DeadLetter{
			Connection: in.Connection, Type: in.Type, Run: in.Run,
			Fault: in.Details.Kind, Detail: in.Details.Detail, Attempts: max(in.Details.Attempts, 1),
		})
		return err
	})
	return temporalError(ctx, err)
}

// TypeOff reports whether a fault of this kind switches the type off, rather than leaving its work undone.
func TypeOff(kind fault.Kind) bool { return kind == fault.Scope || kind == fault.Unsupported }

// WholeConnection reports whether a fault of this kind stops every type alike: it waits for a person, and a dead letter
// for each type would only hide that.
func WholeConnection(kind fault.Kind) bool {
	return kind == fault.Auth || kind == fault.TLS || kind == fault.Config || kind == fault.NotFound
}

// FinishInput closes a run.
type FinishInput struct {
	Target
	Run string `json:"run"`
	// Kind decides what counts as left unread.
	Kind cura.RunKind `json:"kind,omitempty"`
	// Ended tells how the types ended that didn't come to their end: the fault's kind.
	Ended map[cura.ResourceType]Details `json:"ended,omitempty"`
}

// FinishResult is the run's outcome.
type FinishResult struct {
	// Outcome is complete or incomplete.
	Outcome string                            `json:"outcome"`
	Counts  map[cura.ResourceType]cura.Counts `json:"counts"`
}

// FinishRun checks that the run's counts add up, closes it, and leaves the run-level audit record. Of a live connection
// it also lowers or raises the flag: nobody else watches over it.
func (a *Activities) FinishRun(ctx context.Context, in FinishInput) (FinishResult, error) {
	result := FinishResult{Outcome: "complete", Counts: map[cura.ResourceType]cura.Counts{}}
	details := audit.RunDetails{Faults: map[string]int{}}
	var whole *Details
	for _, t := range slices.Sorted(maps.Keys(in.Ended)) {
		d := in.Ended[t]
		details.Faults[string(d.Kind)]++
		if d.Kind == fault.Busy {
			details.Busy = append(details.Busy, t)
		}
		if leftUnread(in.Kind, t, d.Kind) {
			result.Outcome = "incomplete"
		}
		if WholeConnection(d.Kind) {
			whole = &d
		}
	}
	var raised *Alert
	err := a.store.InOrg(ctx, in.Org, func(tx *store.Tx) error {
		// Patients whom the run had to leave as dead letters were not read either.
		left, err := tx.DeadLettersOf(ctx, in.Run)
		if err != nil {
			return err
		}
		if left > 0 {
			result.Outcome = "incomplete"
		}
		details.Outcome = result.Outcome
		run, err := tx.FinishRun(ctx, in.Run, details)
		if err != nil {
			return err
		}
		counts, err := tx.RunCounts(ctx, in.Run)
		if err != nil {
			return err
		}
		read := false // any type to its end
		for t, c := range counts {
			result.Counts[t] = c.Counts
			if _, ended := in.Ended[t]; !ended && c.Done {
				read = true
				if err := tx.SwitchTypeOn(ctx, run.Connection, t); err != nil {
					return err
				}
			}
		}
		raised, err = watchLive(ctx, tx, in.Target, read, whole)
		return err
	})
	if err == nil && raised != nil {
		a.send(ctx, *raised)
	}
	return result, temporalError(ctx, err)
}

// leftUnread reports whether a run of this kind is incomplete because the type ended so. What another run is reading is
// read for a sync, which comes again; a backfill, a replay or a remap had to do it itself. Without patients a backfill has read
// nothing.
func leftUnread(run cura.RunKind, t cura.ResourceType, kind fault.Kind) bool {
	switch {
	case kind == fault.Busy:
		return run == cura.RunBackfill || run == cura.RunReplay || run == cura.RunRemap
	case kind == fault.Paused:
		return false // somebody has wanted it so, and sees it in status
	case TypeOff(kind):
		return run == cura.RunBackfill && t == cura.Patient
	}
	return true
}

// watchLive sets a live connection's health by how its last run ended: whole is the fault that stopped every type, and
// only a run that has read a type to its end shows that the EHR lets us in again.
func watchLive(ctx context.Context, tx *store.Tx, t Target, read bool, whole *Details) (*Alert, error) {
	conn, err := tx.Connection(ctx, t.Connection)
	if err != nil || conn.Phase != cura.PhaseLive {
		return nil, err
	}
	mine := conn.WaitsFor == cura.WaitsForFixCredentials || conn.WaitsFor == cura.WaitsForFixEndpoint // not the onboarding's
	switch {
	case whole == nil && read && mine && conn.Health == cura.HealthAttention:
		return nil, tx.SetStanding(ctx, t.Connection, store.Standing{Phase: cura.PhaseLive, Health: cura.HealthOK, WaitsFor: cura.WaitsForNobody}, audit.Worker)
	case whole == nil || conn.Health == cura.HealthAttention:
		return nil, nil // nothing to raise
	}
	flag := " --base-url URL"
	if whole.Kind == fault.Auth {
		flag = " --secret-file FILE"
	}
	standing := store.Standing{
		Phase: cura.PhaseLive, Health: cura.HealthAttention, WaitsFor: waitsFor(whole.Kind), Why: whole.Detail,
		Commands: []string{"starter test " + string(t.Connection), "starter connection edit " + string(t.Connection) + flag, "starter sync " + string(t.Connection)},
	}
	if err := tx.SetStanding(ctx, t.Connection, standing, audit.Worker); err != nil {
		return nil, err
	}
	return raise(tx, t, standing), nil
}

// waitsFor names what a person has to do about a fault.
func waitsFor(kind fault.Kind) cura.WaitsFor {
	if kind == fault.Auth {
		return cura.WaitsForFixCredentials
	}
	return cura.WaitsForFixEndpoint
}
