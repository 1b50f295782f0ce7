package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.temporal.io/api/serviceerror"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/temporalclient"
	"github.com/cura-health/ehr-sync/workflows"
)

// The demo's window and schedule: 72 hours and minutes, made short enough to watch.
const (
	demoMonitor  = time.Minute
	demoInterval = 10 * time.Second
	demoRef      = "demo/sandbox"
)

// demoFaults are what can go wrong during the demo's monitoring window.
func demoFaults() map[string]sandbox.Faults {
	return map[string]sandbox.Faults{
		"auth":     {RevokedClient: true},
		"errors":   {ErrorRate: 1},
		"throttle": {Throttle: sandbox.Throttle{EveryN: 3, RetryAfterSeconds: 1}},
	}
}

func checkFault(name string) error {
	if _, ok := demoFaults()[name]; name != "" && !ok {
		return usagef("--fault is %q; it must be auth, errors or throttle", name)
	}
	return nil
}

// demo onboards the sandbox hospital with the commands that a person would type.
type demo struct {
	*devStack
	c       *cli.Context
	session *session
	tc      *temporalclient.Client
	listed  store.Listed
	began   time.Time
	// rehearsal is what was changed at the EHR during the window.
	rehearsal *sandbox.Rehearsal
	faulted   bool
	last      string
}

func runDemo(ctx context.Context, c *cli.Context, d *devStack) error {
	s, err := d.openSession(c)
	if err != nil {
		return err
	}
	defer s.close()
	tc, err := s.temporal(ctx)
	if err != nil {
		return err
	}
	defer tc.Close()
	m := &demo{devStack: d, c: c, session: s, tc: tc, began: time.Now()}
	m.describe()
	if err := m.prepare(ctx); err != nil {
		return err
	}
	if err := m.onboard(ctx); err != nil {
		return err
	}
	for {
		status, err := watchOnboarding(ctx, s, tc, m.listed, m.report)
		if err != nil {
			return err
		}
		var delivery *deliverySummary
		var reviews *reviewSummary
		if status.Phase == cura.PhaseLive {
			if delivery, err = m.push(ctx); err != nil {
				return err
			}
			if reviews, err = m.review(ctx); err != nil {
				return err
			}
		}
		summary, err := m.summarize(ctx, status)
		if err != nil {
			return err
		}
		summary.Delivery, summary.Reviews = delivery, reviews
		if summary.Audit, err = m.verifyAudit(ctx); err != nil {
			return err
		}
		if err := m.printSummary(summary); err != nil {
			return err
		}
		if c.Bool("exit") {
			if summary.Outcome != "live" {
				return errors.New("the connection needs a person: " + summary.Why)
			}
			if !summary.Audit.Verified {
				return errors.New("the audit log doesn't verify: " + summary.Audit.Why)
			}
			return nil
		}
		m.tell("\nThe stack goes on. Try in another terminal, in this folder:")
		for _, command := range []string{"starter status " + demoRef, "starter attention", "starter connection show " + demoRef, "starter sync " + demoRef} {
			m.tell("  bin/%s", command)
		}
		m.tell("Ctrl-C stops it; what it holds stays.")
		if summary.Outcome == "live" {
			<-ctx.Done()
			return nil
		}
		if err := m.person(ctx); err != nil {
			return err
		}
	}
}

// person waits until somebody has moved the onboarding on.
func (m *demo) person(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		var state store.ConnectionState
		err := m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
			var err error
			state, err = tx.Connection(ctx, m.listed.Connection)
			return err
		})
		return state.Health == cura.HealthOK, err
	})
}

// poll asks every second until done says yes, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if yes, err := done(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// command runs one command line as a person would, and shows it.
func (m *demo) command(ctx context.Context, args ...string) error {
	out, err := m.capture(ctx, args...)
	for line := range strings.Lines(out) {
		m.tell("  %s", strings.TrimRight(line, "\n"))
	}
	return err
}

// capture runs one command line, and gives what it prints.
func (m *demo) capture(ctx context.Context, args ...string) (string, error) {
	m.tell("\n$ starter %s", strings.Join(args, " "))
	var out, errs bytes.Buffer
	code := run(ctx, append([]string{"starter"}, args...), strings.NewReader(""), &out, &errs)
	if code != exitDone && code != exitWaiting {
		return out.String(), fmt.Errorf("starter %s: %s", strings.Join(args[:min(2, len(args))], " "), strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// prepare makes the org and the connection, or brings the connection of an earlier run up to date.
func (m *demo) prepare(ctx context.Context) error {
	org, name, _ := strings.Cut(demoRef, "/")
	match, err := m.match()
	if err != nil {
		return err
	}
	settings := []string{
		"--base-url", m.sandbox.BaseURL(), "--client-id", m.sandbox.ClientID(),
		"--secret-file", filepath.Join(m.shown, "client-secret"), "--ca-file", filepath.Join(m.shown, "ca.pem"), "--match", match,
		"--deliver", "note=fhir,diagnosis=fhir,procedure=fhir,consent-event=fhir",
	}
	switch _, err = m.session.store.FindConnection(ctx, demoRef); {
	case err == nil:
		err = m.command(ctx, append([]string{"connection", "edit", demoRef}, settings...)...)
	case fault.Is(err, fault.NotFound):
		if _, orgErr := m.session.store.OrgByName(ctx, org); fault.Is(orgErr, fault.NotFound) {
			if err := m.command(ctx, "org", "add", org); err != nil {
				return err
			}
		}
		err = m.command(ctx, append([]string{"connection", "add", "--org", org, "--name", name}, settings...)...)
	}
	if err != nil {
		return err
	}
	m.listed, err = m.session.store.FindConnection(ctx, demoRef)
	return err
}

// match takes the strategy from the data's own identifiers.
func (m *demo) match() (string, error) {
	if system := m.sandbox.MRNSystem(); system != "" {
		return "mrn:" + system, nil
	}
	if m.c.String("data") != "" && len(m.sandbox.Counts()) == 0 {
		return "", fault.New("reading the data", fault.Config, "the folder holds no FHIR resources").
			WithFix("Give a folder with NDJSON files, Bundles or single resources, such as --data ./fhir")
	}
	return "", fault.New("choosing the match strategy", fault.Config, "no Patient in the data has an identifier of type MR").
		WithFix("Give patients that have a medical record number: identifier.type.coding.code MR, with a system")
}

// onboard starts the onboarding, or goes on with the one that an earlier run left.
func (m *demo) onboard(ctx context.Context) error {
	description, err := m.tc.DescribeWorkflowExecution(ctx, workflows.OnboardingID(m.listed.Connection), "")
	var missing *serviceerror.NotFound
	if err != nil && !errors.As(err, &missing) {
		return fmt.Errorf("looking for an onboarding: %w", err)
	}
	if err == nil && description.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		m.tell("\nAn onboarding of an earlier run goes on.")
		return m.goOn(ctx)
	}
	args := []string{"onboard", demoRef, "--monitor", m.c.Duration("monitor").String(), "--interval", m.c.Duration("interval").String()}
	// Each demo leaves one patient with an invalid record at the EHR; with few patients that alone is above the usual share.
	if patients := m.sandbox.Counts()[string(cura.Patient)]; patients > 0 && patients < 5 {
		args = append(args, "--pilot-threshold", "1")
	}
	return m.command(ctx, args...)
}

// goOn retries the step that waits for a person, as that person would.
func (m *demo) goOn(ctx context.Context) error {
	var state store.ConnectionState
	err := m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
		var err error
		state, err = tx.Connection(ctx, m.listed.Connection)
		return err
	})
	if err != nil || state.Health != cura.HealthAttention {
		return err
	}
	m.tell("It waits for a person: %s", state.Why)
	return m.command(ctx, "retry", demoRef)
}

// report tells each change of the onboarding, and does at the EHR what the demo is to show.
func (m *demo) report(status workflows.OnboardingStatus) {
	var lines []string
	for _, step := range status.Steps {
		if step.State == "pending" {
			continue
		}
		line := fmt.Sprintf("  %-10s  %-7s", step.Name, step.State)
		if step.State != "waiting" && step.Text != "" {
			line += "  " + step.Text
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	if text := strings.Join(lines, "\n"); text != m.last {
		if m.last == "" {
			m.tell("")
		}
		for _, line := range lines {
			if !strings.Contains(m.last, line) {
				m.tell("%s", line)
			}
		}
		m.last = text
	}
	if status.Phase != cura.PhaseMonitoring || status.Window.Evaluations < 1 {
		return
	}
	if name := m.c.String("fault"); name != "" {
		m.breakEHR(name)
		return
	}
	m.rehearse()
}

func (m *demo) breakEHR(name string) {
	if m.faulted {
		return
	}
	m.faulted = true
	if err := m.sandbox.SetFaults(demoFaults()[name]); err != nil {
		m.tell("The fault %s couldn't be set: %v", name, err)
		return
	}
	m.tell("\n  The EHR now has the fault %q.\n", name)
}

func (m *demo) rehearse() {
	if m.rehearsal != nil {
		return
	}
	rehearsal, err := m.sandbox.Rehearse(m.c.Context)
	if err != nil {
		m.tell("The EHR's data couldn't be changed: %v", err)
		return
	}
	m.rehearsal = &rehearsal
	m.tell("\n  At the EHR, %d resources were changed, %d added and %d invalidated. The schedule will bring them in.\n",
		rehearsal.Changed, rehearsal.Added, rehearsal.Invalidated)
}

// types are the types that the connection pulls, in the order of reading.
func (m *demo) types(ctx context.Context) ([]cura.ResourceType, error) {
	var state store.ConnectionState
	err := m.session.store.InOrg(ctx, m.listed.Org, func(tx *store.Tx) error {
		var err error
		state, err = tx.Connection(ctx, m.listed.Connection)
		return err
	})
	return slices.DeleteFunc(cura.ResourceTypes(), func(t cura.ResourceType) bool { return !slices.Contains(state.Types, t) }), err
}
