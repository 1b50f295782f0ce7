package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// connectionView is all that is known of a connection, its secret apart.
type connectionView struct {
	connectionRow

	TypeStates []typeView `json:"type_states"`
	// MappingFile is the file of mapping overrides that holds, without its text.
	MappingFile  *store.MappingOverrides `json:"mapping_overrides,omitempty"`
	Strategies   []cura.StrategyChoice   `json:"strategies"`
	Roster       rosterView              `json:"roster"`
	Pace         store.Pace              `json:"pace"`
	Pauses       []store.Pause           `json:"pauses"`
	Runs         []runView               `json:"runs"`
	EndpointTest *testView               `json:"endpoint_test,omitempty"`
}

// typeView is where one resource type of a connection stands.
type typeView struct {
	Type      cura.ResourceType `json:"type"`
	Strategy  cura.Strategy     `json:"strategy"`
	Watermark *time.Time        `json:"watermark,omitempty"`
	OffSince  *time.Time        `json:"off_since,omitempty"`
	OffReason string            `json:"off_reason,omitempty"`
	// Pause is what keeps the type from being read: its own, or else the whole connection's.
	Pause *store.Pause `json:"pause,omitempty"`
}

func (t typeView) state() string {
	switch {
	case t.Pause != nil && t.Pause.Halt:
		return "halted since " + when(&t.Pause.Since)
	case t.Pause != nil:
		return "paused since " + when(&t.Pause.Since)
	case t.OffSince != nil:
		return "off since " + when(t.OffSince) + ": " + t.OffReason
	}
	return "on"
}

// runView is a run with the sum of its counts.
type runView struct {
	store.Run

	Counts cura.Counts `json:"counts"`
}

// testView is the verdict of the newest endpoint test.
type testView struct {
	At      time.Time    `json:"at"`
	Verdict cura.Verdict `json:"verdict"`
	Checks  int          `json:"checks"`
	// Deliveries say for each kind that is to be delivered by FHIR whether the EHR takes it.
	Deliveries []cura.DeliveryCheck `json:"deliveries,omitempty"`
}

// shownRuns is how many runs are shown of a connection.
const shownRuns = 5

func (s *session) connectionView(ctx context.Context, l store.Listed) (connectionView, error) {
	row, err := s.connectionRow(ctx, l)
	if err != nil {
		return connectionView{}, err
	}
	v := connectionView{connectionRow: row}
	err = s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		if v.TypeStates, err = typeViews(ctx, tx, row.ConnectionState); err != nil {
			return err
		}
		if v.Strategies, err = strategyChoices(ctx, tx, row.Connection); err != nil {
			return err
		}
		if v.Roster, err = viewOfRoster(ctx, tx, row.Connection, v.Strategies, 0); err != nil {
			return err
		}
		if v.Pace, err = tx.PaceOf(ctx, l.Connection); err != nil {
			return err
		}
		if v.Pauses, err = tx.Pauses(ctx, l.Connection); err != nil {
			return err
		}
		runs, err := tx.Runs(ctx, l.Connection, time.Time{}, shownRuns)
		if err != nil {
			return err
		}
		for _, r := range runs {
			counts, err := tx.RunCounts(ctx, r.ID)
			if err != nil {
				return err
			}
			view := runView{Run: r}
			for _, c := range counts {
				view.Counts = view.Counts.Plus(c.Counts)
			}
			v.Runs = append(v.Runs, view)
		}
		return nil
	})
	if err != nil {
		return v, err
	}
	if v.MappingFile, err = s.overridesOf(ctx, row.ConnectionState); err != nil {
		return v, err
	}
	if v.MappingFile != nil {
		v.MappingFile.Text = "" // starter mapping show prints it
	}
	v.EndpointTest, err = s.lastTest(ctx, l)
	return v, err
}

func typeViews(ctx context.Context, tx *store.Tx, conn store.ConnectionState) ([]typeView, error) {
	marks, err := tx.Watermarks(ctx, conn.ID)
	if err != nil {
		return nil, err
	}
	off, err := tx.TypesOff(ctx, conn.ID)
	if err != nil {
		return nil, err
	}
	choices, err := strategyChoices(ctx, tx, conn.Connection)
	if err != nil {
		return nil, err
	}
	views := make([]typeView, len(conn.Types))
	for i, t := range conn.Types {
		views[i].Type, views[i].Strategy = t, choices[i].Strategy
		if views[i].Pause, err = tx.Paused(ctx, conn.ID, t); err != nil {
			return nil, err
		}
		if mark, ok := marks[t]; ok {
			views[i].Watermark = &mark
		}
		for _, o := range off {
			if o.Type == t {
				views[i].OffSince, views[i].OffReason = &o.OffSince, o.Reason
			}
		}
	}
	return views, nil
}

// lastTest reads the verdict of the newest endpoint test; nil: none was made.
func (s *session) lastTest(ctx context.Context, l store.Listed) (*testView, error) {
	var view testView
	err := s.store.InOrg(ctx, l.Org, func(tx *store.Tx) error {
		report, at, err := tx.EndpointTest(ctx, l.Connection)
		view = testView{At: at, Verdict: report.Verdict(), Checks: len(report.Checks), Deliveries: report.Deliveries}
		return err
	})
	if fault.Is(err, fault.NotFound) {
		return nil, nil //nolint:nilnil // no test is an answer, not an error
	}
	return &view, err
}

func showConnection(c *cli.Context) error {
	return onConnection(c, func(s *session, l store.Listed) error {
		v, err := s.connectionView(c.Context, l)
		if err != nil {
			return err
		}
		v.Commands = typed(v.Commands, l)
		if asJSON(c) {
			return printJSON(c, v)
		}
		fmt.Fprintln(c.App.Writer, v.settings())
		fmt.Fprintln(c.App.Writer)
		err = printTable(c, v.TypeStates, "",
			column[typeView]{"type", func(t typeView) string { return string(t.Type) }},
			column[typeView]{"read up to", func(t typeView) string { return when(t.Watermark) }},
			column[typeView]{"state", typeView.state})
		if err != nil {
			return err
		}
		fmt.Fprintln(c.App.Writer)
		err = printTable(c, v.Strategies, "",
			column[cura.StrategyChoice]{"type", func(s cura.StrategyChoice) string { return string(s.Type) }},
			column[cura.StrategyChoice]{"read by", func(s cura.StrategyChoice) string { return orDash(string(s.Strategy)) }},
			column[cura.StrategyChoice]{"chosen by", func(s cura.StrategyChoice) string { return s.ChosenBy }},
			column[cura.StrategyChoice]{"why", func(s cura.StrategyChoice) string { return s.Reason }},
			column[cura.StrategyChoice]{"can miss", canMiss})
		if err != nil {
			return err
		}
		if t := v.EndpointTest; t != nil && len(t.Deliveries) > 0 {
			fmt.Fprintln(c.App.Writer)
			if err := printDeliveryChecks(c, t.Deliveries); err != nil {
				return err
			}
		}
		fmt.Fprintln(c.App.Writer)
		return printTable(c, v.Runs, "No run yet.", append([]column[runView]{
			{"run", func(r runView) string { return string(r.Kind) }},
			{"began", func(r runView) string { return when(&r.StartedAt) }},
			{"outcome", func(r runView) string { return r.Outcome }},
		}, countColumns(func(r runView) cura.Counts { return r.Counts })...)...)
	})
}

func printDeliveryChecks(c *cli.Context, checks []cura.DeliveryCheck) error {
	return printTable(c, checks, "",
		column[cura.DeliveryCheck]{"delivers", func(d cura.DeliveryCheck) string { return string(d.Kind) }},
		column[cura.DeliveryCheck]{"as", func(d cura.DeliveryCheck) string { return orDash(d.Resource) }},
		column[cura.DeliveryCheck]{"can", func(d cura.DeliveryCheck) string { return map[bool]string{true: "yes", false: "no"}[d.OK] }},
		column[cura.DeliveryCheck]{"why", func(d cura.DeliveryCheck) string { return strings.TrimSpace(d.Why + " " + d.Fix) }})
}

// canMiss says what reading a type so can overlook, and which categories the server has refused.
func canMiss(s cura.StrategyChoice) string {
	if len(s.NotOffered) == 0 {
		return orDash(s.CanMiss)
	}
	return s.CanMiss + " The server doesn't offer: " + strings.Join(s.NotOffered, ", ") + "."
}

// profile says in a line which profile it is, and what fills it in.
func (v connectionView) profile() string {
	parts := []string{v.EHRProfile}
	if v.ProfileText != "" {
		parts[0] += ", given in a file"
	}
	for _, name := range slices.Sorted(maps.Keys(v.ProfileParams)) {
		parts = append(parts, name+"="+v.ProfileParams[name])
	}
	return strings.Join(parts, "; ")
}

// unmatched says in a line what becomes of patients for whom no profile is found.
func (v connectionView) unmatched() string {
	if v.Match.Unmatched == cura.UnmatchedReview {
		return "a person decides about a patient for whom no profile is found (review)"
	}
	return "a patient for whom no profile is found gets a new one (new)"
}

// mapping says in a line what is mapped with.
func (v connectionView) mapping() string {
	if v.MappingFile == nil {
		return "Cura's own"
	}
	return fmt.Sprintf("Cura's own, with overrides %d, which %s has set at %s", v.MappingFile.Version, v.MappingFile.SetBy, when(&v.MappingFile.SetAt))
}

// pace says in a line how fast the EHR may be asked, and what it has taught.
func (v connectionView) pace() string {
	parts := []string{"as many requests a minute as the profile says"}
	if v.Pace.RequestsPerMinute > 0 {
		parts[0] = fmt.Sprintf("%d requests a minute", v.Pace.RequestsPerMinute)
	}
	if v.Pace.PageSize > 0 {
		parts = append(parts, fmt.Sprintf("pages of %d after throttling", v.Pace.PageSize))
	}
	if v.Pace.Concurrency > 0 {
		parts = append(parts, fmt.Sprintf("%d requests at once after throttling", v.Pace.Concurrency))
	}
	if v.Pace.Throttles > 0 {
		parts = append(parts, fmt.Sprintf("throttled %d times", v.Pace.Throttles))
	}
	if v.Pace.AbsurdRetryAfters > 0 {
		parts = append(parts, fmt.Sprintf("%d absurd Retry-After", v.Pace.AbsurdRetryAfters))
	}
	if v.Pace.HeldUntil != nil && v.Pace.HeldUntil.After(time.Now()) {
		parts = append(parts, "held by the EHR until "+when(v.Pace.HeldUntil))
	}
	if v.Pace.FailuresInARow > 0 {
		parts = append(parts, fmt.Sprintf("%d failures in a row since %s", v.Pace.FailuresInARow, when(v.Pace.FailingSince)))
	}
	return strings.Join(parts, "; ")
}

// settings are the lines that show a connection to a person.
func (v connectionView) settings() string {
	ca := "the system's"
	if v.CAPEM != "" {
		ca = fmt.Sprintf("its own, %d certificates", strings.Count(v.CAPEM, "-----BEGIN CERTIFICATE-----"))
	}
	lines := []string{
		"Connection  " + v.path(),
		"Id          " + string(v.ID),
		"Base URL    " + v.BaseURL,
		"Token URL   " + orElse(v.TokenURL, "discovered"),
		"Client      " + v.ClientID + " (its secret is sealed)",
		"Scopes      " + orElse(strings.Join(v.Scopes, " "), "none is asked for"),
		"CA          " + ca,
		"Matches by  " + v.Match.String(),
		"Unmatched   " + v.unmatched(),
		"Profile     " + v.profile(),
		"Mapping     " + v.mapping(),
		"Pace        " + v.pace(),
		fmt.Sprintf("Alerts      after %d failures in a row", v.Pace.AlertAfter),
		"Delivers    " + v.deliveries(),
		"Pulls need  " + v.pullConsent(),
	}
	if len(v.Roster.ReadBy) > 0 || v.Roster.Active() > 0 {
		lines = append(lines, "Roster      "+v.Roster.members()+"; fed by "+v.Roster.source(), "Enrolments  "+v.Roster.enrolments())
	}
	if v.InsecureLoopback {
		lines = append(lines, "Plain http  allowed to a loopback address")
	}
	if v.EndpointTest != nil {
		lines = append(lines, fmt.Sprintf("Last test   %s, %d checks, %s", v.EndpointTest.Verdict, v.EndpointTest.Checks, when(&v.EndpointTest.At)))
	}
	lines = append(lines, "Phase       "+string(v.Phase), "Health      "+string(v.Health))
	for _, pause := range pauseLines(v.Pauses) {
		lines = append(lines, "Paused      "+pause)
	}
	for _, h := range v.Halts {
		lines = append(lines, "Halted      "+haltText(h.Halt)+". Lift it with: "+h.Lift)
	}
	if v.RemovedAt != nil {
		lines = append(lines, "Removed     "+when(v.RemovedAt))
	}
	if v.WaitsFor != cura.WaitsForNobody {
		lines = append(lines, "", "Waits for a person ("+string(v.WaitsFor)+") since "+when(v.AttentionSince)+":", indented(v.Why))
		for _, command := range v.Commands {
			lines = append(lines, "    "+command)
		}
	}
	return strings.Join(lines, "\n")
}

func removeConnection(c *cli.Context) error {
	return onConnection(c, func(s *session, l store.Listed) error {
		state, err := s.inService(c.Context, l)
		if err != nil {
			return err
		}
		if !c.Bool("yes") {
			return usagef("%s would be taken out of service: its schedule and secret are deleted, what it brought stays; say --yes to do it", path(l))
		}
		tc, err := s.temporal(c.Context)
		switch {
		case err == nil:
			defer tc.Close()
			err = stopSchedules(c.Context, tc, l)
		case state.Phase == cura.PhaseNew || state.Phase == cura.PhaseAborted:
			// Nothing is scheduled in these phases, so nothing is left behind.
			hint(c, "Temporal doesn't answer; the connection is %s, so there is no schedule to delete.", state.Phase)
			err = nil
		}
		if err != nil {
			return err
		}
		if err := s.removeConnection(c.Context, l); err != nil {
			return err
		}
		return printOne(c, map[string]string{"id": string(l.Connection), "org": l.OrgName, "name": l.Name}, "Removed connection "+path(l)+".")
	})
}
