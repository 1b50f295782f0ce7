package main

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// summary is what a demo came to; `make demo EXIT=1 OUTPUT=json` prints it as one JSON object.
type summary struct {
	// Outcome is live or attention.
	Outcome  string   `json:"outcome"`
	Why      string   `json:"why,omitempty"`
	Commands []string `json:"commands,omitempty"`
	// Resources are the counts of this run's full read, by type: served = stored + unchanged + quarantined + in_review + withheld.
	Resources map[cura.ResourceType]cura.Counts `json:"resources"`
	// Incremental are the counts of what the schedule brought during this run.
	Incremental map[cura.ResourceType]cura.Counts `json:"incremental"`
	// NotPulled counts what the EHR serves of types that Cura doesn't pull.
	NotPulled map[string]int `json:"not_pulled,omitempty"`
	// Rehearsal counts what was done to the EHR's data while the window ran.
	Rehearsal map[string]int         `json:"rehearsal,omitempty"`
	Pilot     activities.PilotResult `json:"pilot"`
	// Monitoring is the window, as it stood at its end.
	Monitoring workflows.Window `json:"monitoring"`
	// Delivery is what this run pushed; absent where the data has nobody to push for.
	Delivery *deliverySummary `json:"delivery,omitempty"`
	// Reviews are what this run put before a person; absent where the data has too few patients.
	Reviews *reviewSummary `json:"reviews,omitempty"`
	// Audit is how the org's audit log stands at the end.
	Audit *auditSummary `json:"audit"`
	// WorkflowIDs are the workflows of this run: onboarding, backfill, and each sync.
	WorkflowIDs     []string `json:"workflow_ids"`
	TemporalUI      string   `json:"temporal_ui"`
	DurationSeconds float64  `json:"duration_seconds"`
}

func (m *demo) summarize(ctx context.Context, status workflows.OnboardingStatus) (summary, error) {
	s := summary{
		Outcome: "attention", Why: status.Why,
		Resources: map[cura.ResourceType]cura.Counts{}, Incremental: map[cura.ResourceType]cura.Counts{}, NotPulled: map[string]int{},
		Pilot: status.Pilot, Monitoring: status.Window,
		WorkflowIDs: []string{workflows.OnboardingID(m.listed.Connection)}, TemporalUI: m.temporal.UIURL(),
		DurationSeconds: float64(time.Since(m.began).Milliseconds()) / 1000,
	}
	if m.faulted && len(status.Commands) > 0 {
		s.Commands = append(s.Commands, "starter sandbox faults --control "+m.sandbox.ControlURL()+" --clear")
	}
	for _, command := range status.Commands {
		s.Commands = append(s.Commands, strings.ReplaceAll(command, string(m.listed.Connection), demoRef))
	}
	if m.rehearsal != nil {
		s.Rehearsal = map[string]int{"changed": m.rehearsal.Changed, "added": m.rehearsal.Added, "invalidated": m.rehearsal.Invalidated}
	}
	if status.Phase == cura.PhaseLive {
		s.Outcome = "live"
	}
	types, err := m.types(ctx)
	if err != nil {
		return s, err
	}
	for _, t := range types {
		s.Resources[t], s.Incremental[t] = cura.Counts{}, cura.Counts{}
	}
	for t, n := range m.sandbox.Counts() {
		if _, pulled := s.Resources[cura.ResourceType(t)]; !pulled && n > 0 {
			s.NotPulled[t] = n
		}
	}
	err = m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
		if status.BackfillRun != "" {
			s.WorkflowIDs = append(s.WorkflowIDs, workflows.BackfillID(m.listed.Connection))
			if err := addCounts(ctx, tx, status.BackfillRun, s.Resources); err != nil {
				return err
			}
		}
		runs, err := tx.Runs(ctx, m.listed.Connection, m.began, 1000)
		if err != nil {
			return err
		}
		for _, r := range runs {
			if r.Kind != cura.RunIncremental {
				continue
			}
			s.WorkflowIDs = append(s.WorkflowIDs, r.WorkflowID)
			if err := addCounts(ctx, tx, r.ID, s.Incremental); err != nil {
				return err
			}
		}
		return nil
	})
	return s, err
}

func addCounts(ctx context.Context, tx *store.Tx, run string, into map[cura.ResourceType]cura.Counts) error {
	counts, err := tx.RunCounts(ctx, run)
	for t, c := range counts {
		into[t] = into[t].Plus(c.Counts)
	}
	return err
}

func (m *demo) printSummary(s summary) error {
	if m.c.String("output") == "json" {
		return printJSON(m.c, s)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe connection %s is %s, after %.0f s.\n", demoRef, map[bool]string{true: "live", false: "waiting for a person"}[s.Outcome == "live"], s.DurationSeconds)
	if s.Why != "" {
		fmt.Fprintf(&b, "\n%s\n", s.Why)
		for _, c := range s.Commands {
			fmt.Fprintf(&b, "  bin/%s\n", c)
		}
	}
	fmt.Fprintf(&b, "\nThe full read:\n%s\n\nWhat the schedule brought:\n%s\n", countsTable(s.Resources), countsTable(s.Incremental))
	if len(s.NotPulled) > 0 {
		var others []string
		for t, n := range s.NotPulled {
			others = append(others, fmt.Sprintf("%s %d", t, n))
		}
		sort.Strings(others)
		fmt.Fprintf(&b, "\nThe EHR also has what Cura doesn't pull: %s.\n", strings.Join(others, ", "))
	}
	if d := s.Delivery; d != nil {
		fmt.Fprintf(&b, "\nPushed: %d confirmed, %d cancelled by the revocation, which halted after %.0f ms and was effective after %.0f ms; %d arrived after that.\n",
			d.Confirmed, d.CancelledByConsent, d.HaltMS, d.EffectiveMS, d.ArrivedAfterRevocation)
	}
	if r := s.Reviews; r != nil {
		fmt.Fprintf(&b, "\nReviews: %d opened, %d resolved.\n", r.Opened, r.Resolved)
	}
	fmt.Fprintf(&b, "\nPilot: %d patients: %d new, %d matched, %d ambiguous. Window: %d syncs, %d looks.\nTemporal Web UI: %s\n",
		s.Pilot.Patients, s.Pilot.New, s.Pilot.Matched, s.Pilot.Ambiguous, s.Monitoring.Last.Syncs, s.Monitoring.Evaluations, s.TemporalUI)
	if s.Audit.Verified {
		fmt.Fprintf(&b, "\nThe audit log is verified: %d records are what this head was signed for.\n%s", s.Audit.Records, indented(strings.TrimRight(s.Audit.Head, "\n"))+"\n")
	} else {
		fmt.Fprintf(&b, "\nThe audit log doesn't verify: %s\n", s.Audit.Why)
	}
	_, err := fmt.Fprint(m.c.App.Writer, b.String())
	return err
}

// countsTable shows counts by type, with their sum.
func countsTable(counts map[cura.ResourceType]cura.Counts) string {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.AppendHeader(table.Row{"type", "served", "landed", "stored", "unchanged", "quarantined", "in review", "withheld"})
	var all cura.Counts
	row := func(name string, c cura.Counts) table.Row {
		cells := table.Row{name}
		for _, n := range []int{c.Served, c.Landed, c.Stored, c.Unchanged, c.Quarantined, c.InReview, c.Withheld} {
			cells = append(cells, strconv.Itoa(n))
		}
		return cells
	}
	for _, typ := range cura.ResourceTypes() {
		if c, ok := counts[typ]; ok {
			t.AppendRow(row(string(typ), c))
			all = all.Plus(c)
		}
	}
	t.AppendFooter(row("all", all))
	return t.Render()
}
