package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// selection is the part of a connection's data that a person asks for.
type selection struct {
	since, until *time.Time
	// patients are ids as they were typed or read from a file: Cura's own or the EHR's, which are PHI.
	patients []string
}

// maxPatients is how many patients one sync reads by name; more than that is a range, or a backfill.
const maxPatients = 1000

func readSelection(c *cli.Context) (selection, error) {
	var s selection
	var err error
	if s.since, err = instant(c, "since"); err != nil {
		return s, err
	}
	if s.until, err = instant(c, "until"); err != nil {
		return s, err
	}
	if s.since != nil && s.until != nil && !s.since.Before(*s.until) {
		return s, usagef("the range ends before it begins: --until must be later than --since")
	}
	if s.since != nil && s.since.After(time.Now()) {
		return s, usagef("--since is in the future; there is nothing to read again")
	}
	if c.IsSet("patient") && c.IsSet("patients") {
		return s, usagef("--patient and --patients can't be given together; put all ids into the file")
	}
	s.patients = listed(c.StringSlice("patient"))
	if c.IsSet("patients") {
		if s.patients, err = patientIDs(c, c.String("patients")); err != nil {
			return s, err
		}
	}
	if (c.IsSet("patient") || c.IsSet("patients")) && len(s.patients) == 0 {
		return s, usagef("no patient is named")
	}
	if len(s.patients) > maxPatients {
		return s, usagef("%d patients are more than the %d that one sync reads by name; split the file", len(s.patients), maxPatients)
	}
	return s, nil
}

// instant reads a flag that is a date, an instant or a duration ago.
func instant(c *cli.Context, flag string) (*time.Time, error) {
	if !c.IsSet(flag) {
		return nil, nil
	}
	text := strings.TrimSpace(c.String(flag))
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		at := time.Now().Add(-d).UTC()
		return &at, nil
	}
	if at, ok := parseInstant(text); ok {
		return &at, nil
	}
	return nil, usagef("--%s is neither a date (2026-03-01), nor an instant with a zone (2026-03-01T08:00:00Z), nor how long ago (36h)", flag)
}

// parseInstant reads a date, which stands for its midnight in UTC, or an instant with a zone.
func parseInstant(text string) (at time.Time, ok bool) {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if at, err := time.Parse(layout, strings.TrimSpace(text)); err == nil {
			return at.UTC(), true
		}
	}
	return time.Time{}, false
}

// onTypes runs fn on the connection that the command names, with the types that its flag --types names, none for all. The
// connection must be past its pilot, and pull these types.
func onTypes(c *cli.Context, fn func(*session, store.Listed, []cura.ResourceType) error) error {
	var types []cura.ResourceType
	if c.IsSet("types") {
		var err error
		if types, err = parseTypes(c.StringSlice("types")); err != nil {
			return err
		}
	}
	return onConnection(c, func(s *session, l store.Listed) error {
		conn, err := s.inService(c.Context, l)
		if err != nil {
			return err
		}
		if err := pastPilot(conn, l); err != nil {
			return err
		}
		if err := pulls(conn, l, types); err != nil {
			return err
		}
		return fn(s, l, types)
	})
}

// pastPilot fails for a connection whose data may not come into Cura yet: that begins with the backfill.
func pastPilot(conn store.ConnectionState, l store.Listed) error {
	switch conn.Phase {
	case cura.PhaseBackfill, cura.PhaseMonitoring, cura.PhaseLive:
		return nil
	case cura.PhaseNew, cura.PhaseTesting, cura.PhasePilot, cura.PhaseApproval, cura.PhaseAborted:
	}
	return fault.Newf("syncing", fault.Conflict, "%s is at phase %s; what an EHR has comes into Cura after the pilot", path(l), conn.Phase).
		WithFix("See where it stands with: starter status " + path(l) + "; onboard it with: starter onboard " + path(l))
}

// pulls fails for types that the connection doesn't pull.
func pulls(conn store.ConnectionState, l store.Listed, types []cura.ResourceType) error {
	for _, t := range types {
		if !slices.Contains(conn.Types, t) {
			return usagef("%s doesn't pull %s; its types are %s. Change them with: starter connection edit %s --types …", path(l), t, names(conn.Types), path(l))
		}
	}
	return nil
}

func names(types []cura.ResourceType) string {
	all := make([]string, len(types))
	for i, t := range types {
		all[i] = string(t)
	}
	return strings.Join(all, ", ")
}

// patients finds Cura's own ids of the patients that a person has named. Those that it doesn't know are named by their
// place in what was given, since an id is PHI and this text may be kept.
func (s *session) patients(ctx context.Context, l store.Listed, given []string) ([]string, error) {
	var ids, unknown []string
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		byEHRID, err := tx.MembersByEHRID(ctx, l.Connection, given)
		if err != nil {
			return err
		}
		for i, id := range given {
			if m, ok := byEHRID[id]; ok {
				ids = append(ids, m.ID)
				continue
			}
			if _, err := uuid.Parse(id); err == nil {
				m, err := tx.Member(ctx, l.Connection, id)
				if err == nil {
					ids = append(ids, m.ID)
					continue
				}
				if !fault.Is(err, fault.NotFound) {
					return err
				}
			}
			unknown = append(unknown, strconv.Itoa(i+1))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(unknown) > 0 {
		return nil, fault.Newf("looking for the patients", fault.NotFound, "%s knows no such patient: number %s of those given", path(l), strings.Join(unknown[:min(len(unknown), 20)], ", ")).
			WithFix("Nothing was started. Put them on the roster first (starter roster upload), or correct the ids")
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// syncID is the workflow id of a sync that a person asks for: the same wish joins the run that is under way.
func syncID(l store.Listed, in workflows.SyncInput) string {
	switch {
	case len(in.Patients) == 1 && in.Since == nil && in.Until == nil:
		return workflows.PatientSyncID(l.Connection, in.Patients[0])
	case len(in.Patients) > 0:
		return workflows.PatientSyncID(l.Connection, uuid.NewString())
	case in.Since != nil || in.Until != nil:
		return workflows.RangeSyncID(l.Connection)
	}
	return workflows.SyncNowID(l.Connection)
}
