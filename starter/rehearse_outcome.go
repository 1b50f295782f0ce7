package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/workflows"
)

// outcome is what the rehearsal of one vendor came to; `make profiles OUTPUT=json` prints an object of them by profile.
type outcome struct {
	profile string

	Phase cura.Phase `json:"phase"`
	// Why is what stands in the way of live or of the comparison; empty: nothing.
	Why string `json:"why,omitempty"`
	// RosterSource and Members are of a vendor that is read patient by patient.
	RosterSource cura.RosterSource `json:"roster_source,omitempty"`
	Members      int               `json:"members"`
	// Requests counts what reached the EHR, tokens and metadata included; Throttles those that it answered with 429 or 503,
	// Errors with another 5xx, Refused with 401, Expired with 410.
	Requests  int `json:"requests"`
	Throttles int `json:"throttles"`
	Errors    int `json:"errors"`
	Refused   int `json:"refused"`
	Expired   int `json:"expired"`
	// AbsurdRetryAfters counts the throttles whose Retry-After made no sense to Cura.
	AbsurdRetryAfters int `json:"absurd_retry_afters"`

	Types map[cura.ResourceType]typeOutcome `json:"types"`

	Seconds float64 `json:"seconds"`
}

// typeOutcome is how a type is read, and how the source and Cura compare in it.
type typeOutcome struct {
	Strategy cura.Strategy `json:"strategy"`
	ChosenBy string        `json:"chosen_by"`
	// Held is how many the EHR holds, of the roster's members where it is read by them: counted at the EHR itself, so that
	// it shows what Cura's own comparison would miss too. Every vendor's profile reads all that the sandbox generates.
	Held int64 `json:"held"`
	// Compared says that the numbers below are of a comparison.
	Compared   bool  `json:"compared"`
	Source     int64 `json:"source"`
	Cura       int64 `json:"cura"`
	Missing    int64 `json:"missing"`
	Extra      int64 `json:"extra"`
	Changed    int64 `json:"changed"`
	Unreadable int64 `json:"unreadable"`
}

// outcome collects what is known. comparison is nil where it didn't come to that.
func (o *onboarder) outcome(ctx context.Context, comparison *workflows.ReconcileResult) outcome {
	out := outcome{profile: o.profile, Phase: cura.PhaseNew, Types: map[cura.ResourceType]typeOutcome{}}
	for _, t := range o.ehr.Traffic() {
		out.Requests += t.Requests
		switch {
		case t.Status == http.StatusTooManyRequests || t.Status == http.StatusServiceUnavailable:
			out.Throttles += t.Requests
		case t.Status >= http.StatusInternalServerError:
			out.Errors += t.Requests
		case t.Status == http.StatusUnauthorized:
			out.Refused += t.Requests
		case t.Status == http.StatusGone:
			out.Expired += t.Requests
		}
	}
	if o.listed.Connection == "" {
		return out
	}
	source, err := o.source()
	if err == nil {
		err = o.session.store.InOrg(ctx, o.listed.Org, func(tx *store.Tx) error { return readOutcome(ctx, tx, o.listed.Connection, source, &out) })
	}
	if err != nil {
		out.Why = explain(err)
	}
	if comparison == nil {
		return out
	}
	for _, r := range comparison.Types {
		t := out.Types[r.Type]
		t.Compared, t.Source, t.Cura, t.Missing, t.Extra, t.Changed, t.Unreadable = true, r.Source, r.Cura, r.Missing, r.Extra, r.Changed, r.Unreadable
		out.Types[r.Type] = t
	}
	for _, e := range comparison.Ended {
		out.Why = fmt.Sprintf("%s wasn't compared: %s", e.Type, e.Details.Detail)
	}
	return out
}

// maxMembers is more than a rehearsal has.
const maxMembers = 100_000

// readOutcome fills out with what the database knows of the connection, and how much of the source is for it.
func readOutcome(ctx context.Context, tx *store.Tx, id cura.ConnectionID, source map[cura.ResourceType][]served, out *outcome) error {
	conn, err := tx.Connection(ctx, id)
	if err != nil {
		return err
	}
	out.Phase, out.Why = conn.Phase, conn.Why
	choices, err := strategyChoices(ctx, tx, conn.Connection)
	if err != nil {
		return err
	}
	roster, err := tx.Members(ctx, id, "", maxMembers)
	if err != nil {
		return err
	}
	out.Members = len(roster)
	members := make(map[string]bool, len(roster))
	for _, m := range roster {
		members[m.EHRID] = true
	}
	for _, c := range choices {
		t := typeOutcome{Strategy: c.Strategy, ChosenBy: c.ChosenBy}
		for _, r := range source[c.Type] {
			if !c.Strategy.ByPatient() || members[r.of(c.Type)] {
				t.Held++
			}
		}
		out.Types[c.Type] = t
		if c.Strategy.ByPatient() {
			out.RosterSource = conn.RosterSource
		}
	}
	pace, err := tx.PaceOf(ctx, id)
	out.AbsurdRetryAfters = pace.AbsurdRetryAfters
	return err
}

// wrong says what is wrong with the comparison of a type; empty: nothing.
func (t typeOutcome) wrong() string {
	switch {
	case !t.Compared:
		return "not compared"
	case t.Missing+t.Extra+t.Changed > 0:
		return fmt.Sprintf("%d missing, %d extra, %d changed", t.Missing, t.Extra, t.Changed)
	case t.Source != t.Held:
		return fmt.Sprintf("the EHR holds %d, and Cura was served %d", t.Held, t.Source)
	}
	return ""
}

// clean reports whether the connection is live and nothing is wrong.
func (out outcome) clean() bool { return out.verdict() == "" }

// verdict says what keeps an outcome from being clean: the connection must be live, and every type compared without a
// difference, at least one patient among them. Empty: nothing does.
func (out outcome) verdict() string {
	switch {
	case out.Why != "":
		return out.Why
	case out.Phase != cura.PhaseLive:
		return "it is at phase " + string(out.Phase)
	}
	var parts []string
	for _, t := range cura.ResourceTypes() {
		if r, ok := out.Types[t]; ok && r.wrong() != "" {
			parts = append(parts, string(t)+": "+r.wrong())
		}
	}
	if len(parts) == 0 && out.Types[cura.Patient].Source == 0 {
		return "it was served no patient"
	}
	return strings.Join(parts, "; ")
}

// printOutcomes prints what the vendors came to, and fails unless all are clean.
func printOutcomes(c *cli.Context, outcomes []outcome) error {
	var err error
	if asJSON(c) {
		byProfile := make(map[string]outcome, len(outcomes))
		for _, out := range outcomes {
			byProfile[out.profile] = out
		}
		err = printJSON(c, byProfile)
	} else {
		err = printOutcomeTables(c, outcomes)
	}
	if err != nil {
		return err
	}
	var wrong []string
	for _, out := range outcomes {
		if !out.clean() {
			wrong = append(wrong, "  "+out.profile+": "+strings.ReplaceAll(out.verdict(), "\n", "\n    "))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New("not every profile came to live without a difference:\n" + strings.Join(wrong, "\n"))
}

func printOutcomeTables(c *cli.Context, outcomes []outcome) error {
	number := func(get func(outcome) int) func(outcome) string {
		return func(out outcome) string { return strconv.Itoa(get(out)) }
	}
	_, _ = fmt.Fprintln(c.App.Writer)
	err := printTable(c, outcomes, "",
		column[outcome]{"profile", func(out outcome) string { return out.profile }},
		column[outcome]{"phase", func(out outcome) string { return string(out.Phase) }},
		column[outcome]{"roster", outcome.roster},
		column[outcome]{"requests", number(func(out outcome) int { return out.Requests })},
		column[outcome]{"throttles", number(func(out outcome) int { return out.Throttles })},
		column[outcome]{"absurd", number(func(out outcome) int { return out.AbsurdRetryAfters })},
		column[outcome]{"5xx", number(func(out outcome) int { return out.Errors })},
		column[outcome]{"401", number(func(out outcome) int { return out.Refused })},
		column[outcome]{"410", number(func(out outcome) int { return out.Expired })},
		column[outcome]{"seconds", func(out outcome) string { return fmt.Sprintf("%.0f", out.Seconds) }})
	if err != nil {
		return err
	}
	type row struct {
		profile string
		typ     cura.ResourceType
		typeOutcome
	}
	var rows []row
	for _, out := range outcomes {
		for _, t := range cura.ResourceTypes() {
			if r, ok := out.Types[t]; ok {
				rows = append(rows, row{out.profile, t, r})
			}
		}
	}
	count := func(get func(typeOutcome) int64) func(row) string {
		return func(r row) string {
			if !r.Compared {
				return "-"
			}
			return strconv.FormatInt(get(r.typeOutcome), 10)
		}
	}
	_, _ = fmt.Fprintln(c.App.Writer)
	return printTable(c, rows, "No type was read.",
		column[row]{"profile", func(r row) string { return r.profile }},
		column[row]{"type", func(r row) string { return string(r.typ) }},
		column[row]{"read by", func(r row) string { return string(r.Strategy) }},
		column[row]{"ehr holds", func(r row) string { return strconv.FormatInt(r.Held, 10) }},
		column[row]{"source", count(func(t typeOutcome) int64 { return t.Source })},
		column[row]{"cura", count(func(t typeOutcome) int64 { return t.Cura })},
		column[row]{"missing", count(func(t typeOutcome) int64 { return t.Missing })},
		column[row]{"extra", count(func(t typeOutcome) int64 { return t.Extra })},
		column[row]{"changed", count(func(t typeOutcome) int64 { return t.Changed })})
}

// roster is the roster in a word: how many, by what; a dash where none is read by.
func (out outcome) roster() string {
	if out.RosterSource == "" {
		return "-"
	}
	return fmt.Sprintf("%d by %s", out.Members, out.RosterSource)
}
