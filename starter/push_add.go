package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

// queued is what was queued, by the ids of the items in the file's order.
type queued struct {
	Connection string   `json:"connection"`
	Items      []string `json:"items"`
}

func addArtefacts(c *cli.Context) error {
	name, file, err := twoWords(c, "the file of artefacts, or - for standard input")
	if err != nil {
		return err
	}
	text, err := readInput(c, file, maxArtefactFile)
	if err != nil {
		return usagef("the artefacts: %s", err)
	}
	if file == "-" {
		file = "standard input"
	}
	artefacts, err := parseArtefacts(file, text, time.Now().UTC())
	if err != nil {
		return err
	}
	return onRoster(c, name, func(s *session, l store.Listed, conn store.ConnectionState) error {
		if _, err := s.leave(c, orgOf(l), demand{audit.PushQueued, l.Connection, []cura.Role{cura.RoleOps}}); err != nil {
			return err
		}
		if err := fitsConnection(file, conn.Connection, artefacts); err != nil {
			return err
		}
		ids, err := s.queue(c.Context, l, artefacts)
		if err != nil {
			return err
		}
		hintRoutes(c, conn.Connection, l, artefacts)
		return printOne(c, queued{path(l), ids}, append([]string{fmt.Sprintf("Queued for %s:", path(l))}, ids...)...)
	})
}

// queue puts artefacts into the outbox, all or nothing, and gives the ids of their items. What is there already stays as it is,
// under the id that it has.
func (s *session) queue(ctx context.Context, l store.Listed, artefacts []fileArtefact) ([]string, error) {
	ids := make([]string, len(artefacts))
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		for i, a := range artefacts {
			var err error
			if ids[i], err = s.queueOne(ctx, tx, l, a); err != nil {
				return atLine(a.line, err)
			}
		}
		return nil
	})
	return ids, err
}

func (s *session) queueOne(ctx context.Context, tx *store.Tx, l store.Listed, a fileArtefact) (string, error) {
	link, of, err := tx.LinkOf(ctx, l.Connection, a.Patient)
	if err != nil {
		return "", err
	}
	if a.EncounterEHRID != "" {
		has, err := tx.HasEncounter(ctx, l.Connection, of, a.EncounterEHRID)
		if err != nil {
			return "", err
		}
		if !has {
			return "", fault.New("queueing the artefact", fault.NotFound, "encounter of another org or patient, or one that Cura hasn't pulled").
				WithFix("Give the EHR's id of an encounter of the patient; pull it first with: starter sync " + path(l) + " --types Encounter")
		}
	}
	return tx.AddItem(ctx, l.Connection, link, a.Artefact, store.NotExempt, s.actor)
}

// atLine says which line of a file an error is about.
func atLine(line int, err error) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind == fault.Unavailable {
		return err
	}
	fix := "Nothing was queued"
	if f.Fix != "" {
		fix += ". " + f.Fix
	}
	return fault.Wrap(fmt.Sprintf("queueing line %d", line), f.Kind, f.Detail, err).WithFix(fix)
}

// fitsConnection checks artefacts against what the connection's EHR takes, as far as it is told by its profile.
func fitsConnection(file string, conn cura.Connection, artefacts []fileArtefact) error {
	p, err := connectionProfile(conn)
	if err != nil {
		return settingsFault(err)
	}
	wrong := problems{file: file}
	for _, a := range artefacts {
		w, ok := p.Write(a.Kind)
		if !ok || conn.Deliveries[a.Kind] != cura.RouteFHIR {
			continue
		}
		checkWrite(&wrong, a, w, p.Title)
		// The patient isn't known yet, and whose it is doesn't matter for whether it can be written.
		_, err := mappings.Outbound(a.Artefact, mappings.Outgoing{
			Resource: w.Resource, PatientEHRID: "anybody", PeriodEnd: w.PeriodEnd, ContentTypes: w.ContentTypes,
		})
		addReasons(&wrong, a.line, err)
	}
	return wrong.usage()
}

func checkWrite(wrong *problems, a fileArtefact, w profile.Write, title string) {
	needsEncounter := w.EncounterRequired && (a.Diagnosis == nil || a.Diagnosis.Category == "encounter-diagnosis")
	if needsEncounter && a.EncounterEHRID == "" {
		wrong.add("line %d: encounter missing: %s takes no %s without one", a.line, title, a.Kind)
	}
	if a.Diagnosis != nil && len(w.Categories) > 0 && !slices.Contains(w.Categories, a.Diagnosis.Category) {
		wrong.add("line %d: diagnosis.category isn't one that %s takes: %s", a.line, title, words(w.Categories))
	}
}

// hintRoutes tells of kinds that are queued and that the connection doesn't deliver.
func hintRoutes(c *cli.Context, conn cura.Connection, l store.Listed, artefacts []fileArtefact) {
	off := map[cura.ArtefactKind]bool{}
	for _, a := range artefacts {
		if route := conn.Deliveries[a.Kind]; route == "" || route == cura.RouteOff {
			off[a.Kind] = true
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(off)) {
		hint(c, "%s delivers no %s: it will be denied. Change that with: starter connection edit %s --deliver %s=fhir", path(l), kind, path(l), kind)
	}
}
