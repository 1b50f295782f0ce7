package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/mappings"
)

const (
	// maxResource is the largest resource in a file that is previewed.
	maxResource = 16 << 20
	// maxPreviewed is how many resources of a patient are previewed.
	maxPreviewed = 200
)

func previewMapping(c *cli.Context) error {
	if c.String("patient") != "" {
		return previewPatient(c)
	}
	if c.String("resource") == "" {
		return usagef("%s needs --resource, or a connection and --patient; see: %s --help", c.Command.HelpName, c.Command.HelpName)
	}
	return previewFile(c)
}

// previewFile shows a resource of a file.
func previewFile(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	resource, file := c.String("resource"), c.String("overrides")
	if resource == "-" && file == "-" {
		return usagef("--resource and --overrides can't both read standard input")
	}
	var o *mappings.Overrides
	if file != "" {
		var err error
		if o, _, err = readOverrides(c, file); err != nil {
			return err
		}
	}
	raw, err := readInput(c, resource, maxResource)
	if err != nil {
		return usagef("the resource: %s", err)
	}
	p, err := mappings.PreviewWith(raw, nil, o)
	if err != nil {
		return err
	}
	if asJSON(c) {
		return printJSON(c, p)
	}
	if err := printPreview(c, p, o != nil); err != nil || o == nil {
		return err
	}
	last := strconv.Itoa(p.Changed()) + " of " + strconv.Itoa(len(p.Lines)) + " lines change. The row would say " + p.VersionAfter + "."
	if p.Excluded {
		last = "The overrides leave out " + string(p.Type) + ": this resource wouldn't be stored."
	}
	_, err = fmt.Fprintln(c.App.Writer, "\n"+last)
	return err
}

// printPreview prints the lines of a resource; compared shows before and after, and after only where it is another.
func printPreview(c *cli.Context, p mappings.OverridePreview, compared bool) error {
	type line = mappings.OverrideLine
	columns := []column[line]{
		{"element", func(l line) string { return l.Element }},
		{"value at the EHR", func(l line) string { return l.Source }},
		{"Cura field", func(l line) string { return l.Field }},
		{"value in Cura", func(l line) string { return l.Before }},
	}
	if compared {
		columns[3].head = "before"
		columns = append(columns, column[line]{"after", func(l line) string {
			switch {
			case l.Before == l.After:
				return "" // what changes shall be seen
			case l.After == "":
				return "-"
			}
			return l.After
		}})
	}
	return printTable(c, p.Lines, "", columns...)
}

// patientPreview is how what has landed of a patient is mapped, before and after. It holds PHI.
type patientPreview struct {
	Connection    string            `json:"connection"`
	Profile       cura.ProfileID    `json:"profile"`
	VersionBefore string            `json:"version_before"`
	VersionAfter  string            `json:"version_after"`
	Resources     []resourcePreview `json:"resources"`
	// More is true where more has landed than is shown.
	More bool `json:"more"`
}

// resourcePreview is one resource of it.
type resourcePreview struct {
	mappings.OverridePreview

	// Rejected says why there is nothing to compare: it can't be mapped, before or after.
	Rejected string `json:"rejected,omitempty"`
}

// previewPatient shows what has landed of a patient.
func previewPatient(c *cli.Context) error {
	if c.String("resource") != "" {
		return usagef("--patient and --resource can't be given together")
	}
	var after *mappings.Overrides
	compared := c.String("overrides") != ""
	if compared {
		var err error
		if after, _, err = readOverrides(c, c.String("overrides")); err != nil {
			return err
		}
	}
	return onConnection(c, func(s *session, l store.Listed) error {
		state, err := s.state(c.Context, l)
		if err != nil {
			return err
		}
		if _, err := s.leave(c, orgOf(l), demand{audit.OperatorCommand, l.Connection, store.OperatorRoles()}); err != nil {
			return err
		}
		before, err := s.parsedOverrides(c.Context, state, l)
		if err != nil {
			return err
		}
		if !compared {
			after = before
		}
		v := patientPreview{Connection: path(l), VersionBefore: before.Version(), VersionAfter: after.Version(), Resources: []resourcePreview{}}
		landed, err := s.landedOf(c, l, &v)
		if err != nil {
			return err
		}
		for _, r := range landed {
			v.Resources = append(v.Resources, previewOf(r, before, after))
		}
		if asJSON(c) {
			return printJSON(c, v)
		}
		return v.print(c, compared)
	})
}

// landedOf finds the patient and reads what has landed of them. Nothing is shown of whom the log doesn't say that they were looked at.
func (s *session) landedOf(c *cli.Context, l store.Listed, v *patientPreview) ([]store.RawResource, error) {
	var landed []store.RawResource
	err := s.store.InOrg(c.Context, l.Org, func(tx *store.Tx) error {
		var err error
		if v.Profile, err = tx.ProfileOf(c.Context, c.String("patient")); err != nil {
			return err
		}
		tx.Audit(audit.Record{
			Kind: audit.OperatorCommand, Actor: s.actor, Connection: l.Connection, Outcome: audit.Success,
			Details: map[string]any{"command": "mapping preview", "profile": v.Profile, "before": v.VersionBefore, "after": v.VersionAfter},
		})
		landed, err = tx.LandedOf(c.Context, l.Connection, v.Profile, maxPreviewed+1)
		return err
	})
	if v.More = len(landed) > maxPreviewed; v.More {
		landed = landed[:maxPreviewed]
	}
	return landed, err
}

func previewOf(r store.RawResource, before, after *mappings.Overrides) resourcePreview {
	p, err := mappings.PreviewWith(r.Raw, before, after)
	if err == nil {
		return resourcePreview{OverridePreview: p}
	}
	when := "now: "
	if _, now := mappings.MapWith(r.Raw, before); now == nil {
		when = "with the file: "
	}
	p = mappings.OverridePreview{Type: r.Type, VersionBefore: before.Version(), VersionAfter: after.Version(), Lines: []mappings.OverrideLine{}}
	return resourcePreview{OverridePreview: p, Rejected: when + err.Error()}
}

// print prints the resources; compared prints those that change, and how many others there are.
func (v patientPreview) print(c *cli.Context, compared bool) error {
	if len(v.Resources) == 0 {
		_, err := fmt.Fprintln(c.App.Writer, "Nothing that may be shown has landed of this patient at "+v.Connection+".")
		return err
	}
	if v.More {
		hint(c, "Only %d resources are looked at; more have landed.", maxPreviewed)
	}
	of, nth, same := map[cura.ResourceType]int{}, map[cura.ResourceType]int{}, map[cura.ResourceType]int{}
	excluded := map[cura.ResourceType]int{}
	for _, r := range v.Resources {
		of[r.Type]++
		if r.Excluded {
			excluded[r.Type]++
		}
	}
	changed := 0
	for _, r := range v.Resources {
		nth[r.Type]++
		title := fmt.Sprintf("%s %d of %d", r.Type, nth[r.Type], of[r.Type])
		switch {
		case r.Rejected != "":
			fmt.Fprintln(c.App.Writer, title+", "+r.Rejected+"\n")
			continue
		case compared && r.Changed() == 0:
			same[r.Type]++
			continue
		}
		changed++
		fmt.Fprintln(c.App.Writer, title)
		if err := printPreview(c, r.OverridePreview, compared); err != nil {
			return err
		}
		fmt.Fprintln(c.App.Writer)
	}
	if !compared {
		_, err := fmt.Fprintln(c.App.Writer, "Rows that are mapped so say "+v.VersionBefore+".")
		return err
	}
	lines := []string{fmt.Sprintf("%d of %d resources change. Rows would say %s instead of %s.", changed, len(v.Resources), v.VersionAfter, v.VersionBefore)}
	if text := countsByType(same); text != "" {
		lines = append(lines, "Nothing changes in: "+text+".")
	}
	if text := countsByType(excluded); text != "" {
		lines = append(lines, "The file leaves out: "+text+". That isn't read any more, and what was read stays.")
	}
	_, err := fmt.Fprintln(c.App.Writer, strings.Join(lines, "\n"))
	return err
}

// countsByType lists counts in the order of the types.
func countsByType(counts map[cura.ResourceType]int) string {
	var parts []string
	for _, t := range cura.ResourceTypes() {
		if counts[t] > 0 {
			parts = append(parts, string(t)+" "+strconv.Itoa(counts[t]))
		}
	}
	return strings.Join(parts, ", ")
}
