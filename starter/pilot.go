package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

func pilotCommand() *cli.Command {
	return &cli.Command{
		Name:      "pilot",
		Usage:     "show what became of each patient of a connection's pilot",
		ArgsUsage: "CONNECTION",
		Description: "With --preview it shows patient data, element by element and the Cura field that each becomes. Who looked, and at\n" +
			"what, is in the audit log. The pilot's data is purged when the connection goes live or the onboarding is aborted.\n\n" +
			example("starter pilot st-mary/main", "starter pilot st-mary/main --preview --position 3"),
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "preview", Usage: "show how each element is mapped: patient data"},
			&cli.IntFlag{Name: "position", Usage: "only the patient at position `N`"},
		},
		Action: showPilot,
	}
}

func showPilot(c *cli.Context) error {
	position, preview := c.Int("position"), c.Bool("preview")
	if position < 0 || (c.IsSet("position") && position == 0) {
		return usagef("--position is %d; positions begin at 1", position)
	}
	return onConnection(c, func(s *session, l store.Listed) error {
		shadow, err := s.shadow(c.Context, l.Org, l.Connection)
		if err != nil {
			return err
		}
		// The record comes first: nothing is shown that isn't in the log.
		err = s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
			tx.Audit(audit.Record{
				Kind: audit.PilotViewed, Actor: s.actor, Connection: l.Connection, Outcome: audit.Success,
				Details: map[string]any{"preview": preview, "position": position},
			})
			return nil
		})
		if err != nil {
			return err
		}
		var slots []store.PilotSlot
		var purges []audit.Record
		err = s.store.InOrg(c.Context, shadow.OrgID, func(tx *store.Tx) error {
			if slots, err = tx.PilotPatients(c.Context, shadow.ID, ""); err != nil {
				return err
			}
			purges, err = tx.AuditSince(c.Context, shadow.ID, audit.PilotPurged, time.Time{})
			return err
		})
		if err != nil {
			return err
		}
		if len(slots) == 0 {
			return noPilot(c, l, purges)
		}
		reports := pilotReports(slots, position)
		if position > 0 && len(reports) == 0 {
			return fault.Newf("looking for the pilot patient", fault.NotFound, "there is no report at position %d of %d", position, len(slots)).
				WithFix("See all of them with: starter pilot " + path(l))
		}
		if left := len(slots) - slices.IndexFunc(append(slots, store.PilotSlot{}), func(s store.PilotSlot) bool { return !s.Done }); left > 0 && position == 0 {
			hint(c, "%d of %d patients haven't been read yet.", left, len(slots))
		}
		return printPilot(c, reports, preview)
	})
}

// noPilot says why there is no pilot to show.
func noPilot(c *cli.Context, l store.Listed, purges []audit.Record) error {
	if asJSON(c) {
		return printJSON(c, []cura.PilotPatient{})
	}
	text := "No pilot of " + path(l) + " has been run yet; begin one with: starter onboard " + path(l)
	if len(purges) > 0 {
		last := purges[len(purges)-1]
		text = "The pilot of " + path(l) + " was purged at " + when(&last.At) + purgeReason(last) + "."
	}
	_, err := fmt.Fprintln(c.App.Writer, text)
	return err
}

// purgeReason reads the reason from a record of kind PilotPurged.
func purgeReason(r audit.Record) string {
	var details struct {
		Why string `json:"why"`
	}
	raw, ok := r.Details.([]byte)
	if !ok || json.Unmarshal(raw, &details) != nil || details.Why == "" {
		return ""
	}
	return ": " + details.Why
}

// pilotReports are the reports that are there, of one position or of all (0).
func pilotReports(slots []store.PilotSlot, position int) []cura.PilotPatient {
	var reports []cura.PilotPatient
	for _, slot := range slots {
		if slot.Report != nil && (position == 0 || slot.Position == position) {
			reports = append(reports, *slot.Report)
		}
	}
	return reports
}

// printPilot prints the reports; patient data is in them only with preview.
func printPilot(c *cli.Context, reports []cura.PilotPatient, preview bool) error {
	if !preview {
		for i := range reports {
			reports[i].Preview = nil
		}
	}
	err := printRows(c, reports, "No patient of the pilot has been read yet.",
		column[cura.PilotPatient]{"position", func(p cura.PilotPatient) string { return strconv.Itoa(p.Position) }},
		column[cura.PilotPatient]{"match", func(p cura.PilotPatient) string { return p.Match }},
		column[cura.PilotPatient]{"reason", func(p cura.PilotPatient) string { return p.MatchReason }},
		column[cura.PilotPatient]{"resources", pilotResources},
		column[cura.PilotPatient]{"rejected", func(p cura.PilotPatient) string { return orDash(strings.Join(p.Rejected, "\n")) }},
		column[cura.PilotPatient]{"missing", func(p cura.PilotPatient) string { return orDash(strings.Join(p.Missing, "\n")) }})
	if err != nil || !preview || asJSON(c) {
		return err
	}
	for _, p := range reports {
		fmt.Fprintf(c.App.Writer, "\nPatient %d\n", p.Position)
		err := printTable(c, p.Preview, "Nothing of this patient could be mapped.",
			column[cura.PreviewLine]{"element", func(l cura.PreviewLine) string { return l.Element }},
			column[cura.PreviewLine]{"value at the EHR", func(l cura.PreviewLine) string { return l.Source }},
			column[cura.PreviewLine]{"Cura field", func(l cura.PreviewLine) string { return l.Field }},
			column[cura.PreviewLine]{"value", func(l cura.PreviewLine) string { return l.Value }})
		if err != nil {
			return err
		}
	}
	return nil
}

// pilotResources says how many resources of each type were read of a patient.
func pilotResources(p cura.PilotPatient) string {
	var parts []string
	for _, t := range cura.ResourceTypes() {
		if n := p.Counts[t].Served; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", t, n))
		}
	}
	return orDash(strings.Join(parts, "\n"))
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
