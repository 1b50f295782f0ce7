package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// addConnection stores a connection with its sealed secret, all or nothing, and then the shadow that stands for it in the
// org's sandbox org.
func (s *session) addConnection(ctx context.Context, edit connectionEdit) error {
	conn := edit.conn
	sealed, err := edit.sealer.Seal(conn.OrgID, conn.ID, secrets.ClientSecret, edit.secret)
	if err != nil {
		return err
	}
	err = s.store.InOrg(ctx, conn.OrgID, func(tx *store.Tx) error {
		if err := tx.AddConnection(ctx, conn, "", s.actor); err != nil {
			return err
		}
		if err := edit.pace.put(ctx, tx, conn.ID, s.actor); err != nil {
			return err
		}
		return tx.PutCredential(ctx, conn.ID, string(secrets.ClientSecret), sealed, s.actor)
	})
	if err != nil {
		return err
	}
	return s.keepShadow(ctx, conn)
}

// connectionEdit is what addConnection stores and editConnection changes: the settings, the pace where it is named, and the
// secret where there is a sealer.
type connectionEdit struct {
	conn   cura.Connection
	pace   paceSettings
	sealer *secrets.Sealer
	secret string
}

// editConnection stores the changed settings, and the secret with them, all or nothing; then it brings the shadow in step.
func (s *session) editConnection(ctx context.Context, edit connectionEdit) error {
	var sealed []byte
	if edit.sealer != nil {
		var err error
		if sealed, err = edit.sealer.Seal(edit.conn.OrgID, edit.conn.ID, secrets.ClientSecret, edit.secret); err != nil {
			return err
		}
	}
	err := s.store.InOrg(ctx, edit.conn.OrgID, func(tx *store.Tx) error {
		if err := tx.EditConnection(ctx, edit.conn, s.actor); err != nil {
			return err
		}
		if err := edit.pace.put(ctx, tx, edit.conn.ID, s.actor); err != nil {
			return err
		}
		if sealed == nil {
			return nil
		}
		return tx.PutCredential(ctx, edit.conn.ID, string(secrets.ClientSecret), sealed, s.actor)
	})
	if err != nil {
		return err
	}
	return s.keepShadow(ctx, edit.conn)
}

// shadow finds the shadow connection of a live one; fault.NotFound where it has none.
func (s *session) shadow(ctx context.Context, org cura.OrgID, live cura.ConnectionID) (store.ConnectionState, error) {
	sandbox, err := s.store.SandboxOf(ctx, org)
	if err != nil {
		return store.ConnectionState{}, err
	}
	var shadow store.ConnectionState
	err = s.store.InOrg(ctx, sandbox, func(tx *store.Tx) error {
		shadow, err = tx.ShadowOf(ctx, live)
		return err
	})
	if fault.Is(err, fault.NotFound) {
		err = fault.Newf("looking for the shadow connection", fault.NotFound, "connection %s has none in the sandbox org", live).
			WithFix("Any change makes it: starter connection edit")
	}
	return shadow, err
}

// keepShadow makes the shadow of a live connection, or brings it in step. The shadow has no secret and no client: the
// pilot's rows hang on it, and nothing is ever read through it. It lives in another org, so in another transaction: where
// that fails, the next edit makes up for it.
func (s *session) keepShadow(ctx context.Context, live cura.Connection) error {
	sandbox, err := s.store.SandboxOf(ctx, live.OrgID)
	if err != nil {
		return err
	}
	shadow := live
	shadow.OrgID, shadow.ClientID, shadow.TokenURL, shadow.CAPEM, shadow.Scopes = sandbox, "none", "", "", []string{}
	shadow.Deliveries = nil // nor written
	known, err := s.shadow(ctx, live.OrgID, live.ID)
	switch {
	case err == nil:
		shadow.ID = known.ID
		return s.store.InOrg(ctx, sandbox, func(tx *store.Tx) error { return tx.EditConnection(ctx, shadow, s.actor) })
	case !fault.Is(err, fault.NotFound):
		return err
	}
	shadow.ID = cura.ConnectionID(uuid.NewString())
	return s.store.InOrg(ctx, sandbox, func(tx *store.Tx) error { return tx.AddConnection(ctx, shadow, live.ID, s.actor) })
}

// removeConnection takes a connection out of service: pilot data and shadow, then the connection with its secret.
func (s *session) removeConnection(ctx context.Context, l store.Listed) error {
	shadow, err := s.shadow(ctx, l.Org, l.Connection)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err == nil && shadow.RemovedAt == nil {
		err := s.store.InOrg(ctx, shadow.OrgID, func(tx *store.Tx) error {
			if err := tx.PurgePilot(ctx, shadow.ID, "the connection is removed"); err != nil {
				return err
			}
			return tx.RemoveConnection(ctx, shadow.ID, s.actor)
		})
		if err != nil {
			return err
		}
	}
	return s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		if err := tx.PutPilotChoices(ctx, l.Connection, nil, s.actor); err != nil {
			return err
		}
		return tx.RemoveConnection(ctx, l.Connection, s.actor)
	})
}

// stopSchedules deletes a connection's schedules; one that isn't there is as good as deleted. It refuses while an onboarding
// runs, which would enable them again.
func stopSchedules(ctx context.Context, tc client.Client, l store.Listed) error {
	running, err := onboardingRuns(ctx, tc, l.Connection)
	if err != nil {
		return err
	}
	if running {
		return fault.New("removing the connection", fault.Conflict, "its onboarding is running").
			WithFix("Abort it first with: starter abort " + path(l) + " --reason TEXT")
	}
	for _, id := range []string{workflows.ScheduleID(l.Connection), workflows.ReconcileScheduleID(l.Connection)} {
		err := tc.ScheduleClient().GetHandle(ctx, id).Delete(ctx)
		var missing *serviceerror.NotFound
		if err != nil && !errors.As(err, &missing) {
			return fault.Wrap("deleting the schedules", fault.Unavailable, "Temporal refuses or doesn't answer", err).
				WithFix("See that Temporal runs, then try again")
		}
	}
	return nil
}

// connectionRow is a connection as lists show it.
type connectionRow struct {
	store.ConnectionState

	Org             string     `json:"org"`
	LastSync        *store.Run `json:"last_sync,omitempty"`
	LastComplete    *time.Time `json:"last_complete_at,omitempty"`
	OpenDeadLetters int        `json:"open_dead_letters"`
	// Withheld is how many patients aren't read, by the connection's policy and their consents.
	Withheld int `json:"withheld_patients,omitempty"`
	// Halts are the kill switches that stand for it.
	Halts []haltOf `json:"halts,omitempty"`
}

func (r connectionRow) path() string { return r.Org + "/" + r.Name }

// recentRuns is how many of a connection's last runs are looked through.
const recentRuns = 50

// connections reads all connections in service, by org and name. Each org is entered on its own.
func (s *session) connections(ctx context.Context) ([]connectionRow, error) {
	all, err := s.store.Connections(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]connectionRow, 0, len(all))
	for _, l := range all {
		row, err := s.connectionRow(ctx, l)
		if err != nil {
			return nil, err
		}
		if row.RemovedAt == nil {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (s *session) connectionRow(ctx context.Context, l store.Listed) (connectionRow, error) {
	row := connectionRow{Org: l.OrgName}
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		var err error
		if row.ConnectionState, err = tx.Connection(ctx, l.Connection); err != nil {
			return err
		}
		runs, err := tx.Runs(ctx, l.Connection, time.Time{}, recentRuns)
		if err != nil {
			return err
		}
		row.LastSync, row.LastComplete = lastEnds(runs)
		letters, err := tx.DeadLetters(ctx, false)
		for _, d := range letters {
			if d.Connection == l.Connection {
				row.OpenDeadLetters++
			}
		}
		if err != nil {
			return err
		}
		if row.Withheld, err = tx.WithheldPatients(ctx, l.Connection); err != nil {
			return err
		}
		row.Halts, err = haltsOf(ctx, tx, l)
		return err
	})
	return row, err
}

// lastEnds finds the newest run that has ended, and when a run last ended complete.
func lastEnds(runs []store.Run) (*store.Run, *time.Time) {
	ended := slices.DeleteFunc(slices.Clone(runs), func(r store.Run) bool { return r.FinishedAt == nil || r.Kind == cura.RunReplay })
	if len(ended) == 0 {
		return nil, nil
	}
	for _, r := range ended {
		if r.Outcome == "complete" {
			return &ended[0], r.FinishedAt
		}
	}
	return &ended[0], nil
}
