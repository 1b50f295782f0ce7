package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/stack"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/temporalclient"
	"github.com/cura-health/ehr-sync/workflows"
)

// The rehearsal's window, schedule and hospitals, where the command line doesn't say.
const (
	rehearsalMonitor  = 30 * time.Second
	rehearsalInterval = 5 * time.Second
	rehearsalPatients = 20
)

// rehearsalSettings are the worker's settings: pages small enough for chains of them, waits short enough to watch, and
// room for all hospitals at once.
func rehearsalSettings() []string {
	return []string{"CURA_PAGE_SIZE=20", "CURA_RETRY_INITIAL=200ms", "CURA_PROBE_INITIAL=500ms", "CURA_PROBE_MAX=5s", "CURA_BULK_SLOTS=10"}
}

// rehearsalDir checks the flags of --profiles and empties the folder that its stack keeps everything in: a rehearsal
// begins clean, so that what it shows is its own doing.
func rehearsalDir(c *cli.Context, dir string) (string, error) {
	for _, flag := range []string{"demo", "data", "fault", "exit"} {
		if c.IsSet(flag) {
			return "", usagef("--profiles doesn't go with --%s; leave one of the two out", flag)
		}
	}
	dir = filepath.Join(dir, profilesDir)
	if err := stack.RemovePostgres(c.Context, filepath.Join(dir, "postgres")); err != nil {
		return "", fmt.Errorf("removing the PostgreSQL cluster of the rehearsal before: %w", err)
	}
	return dir, os.RemoveAll(dir)
}

// hospital is one sandbox EHR of the rehearsal.
type hospital struct {
	vendor
	// dir holds what belongs to it; shown is dir as the user wrote it.
	dir, shown string
	ehr        *sandbox.Server
}

// startHospitals starts a sandbox EHR for each vendor, on any free ports: their state begins anew every time.
func (d *devStack) startHospitals(ctx context.Context, c *cli.Context) error {
	patients := rehearsalPatients
	if c.IsSet("patients") {
		patients = c.Int("patients")
	}
	for _, v := range vendors() {
		h := &hospital{vendor: v, dir: filepath.Join(d.dir, v.profile), shown: filepath.Join(d.shown, v.profile)}
		if err := os.MkdirAll(h.dir, 0o700); err != nil {
			return fmt.Errorf("making the folder of the %s sandbox: %w", v.profile, err)
		}
		var err error
		h.ehr, err = startSandbox(ctx, h.dir, sandbox.Config{Vendor: v.profile, Patients: patients, Seed: 1})
		if err != nil {
			return err
		}
		d.hospitals = append(d.hospitals, h)
	}
	return nil
}

// rehearsal onboards the hospitals with the commands that a person would type, all of them side by side.
type rehearsal struct {
	*devStack
	c       *cli.Context
	session *session
	tc      *temporalclient.Client
	program string
	telling sync.Mutex
}

func runRehearsal(ctx context.Context, c *cli.Context, d *devStack) error {
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
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding starter: %w", err)
	}
	r := &rehearsal{devStack: d, c: c, session: s, tc: tc, program: program}
	r.introduce()
	outcomes := make([]outcome, len(d.hospitals))
	var all sync.WaitGroup
	for i, h := range d.hospitals {
		all.Go(func() { outcomes[i] = (&onboarder{rehearsal: r, hospital: h, began: time.Now()}).rehearse(ctx) })
	}
	all.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return printOutcomes(c, outcomes)
}

func (r *rehearsal) introduce() {
	r.tell("\nThe stack runs. It holds what this rehearsal brings alone, and ends with it.")
	r.tell("  Temporal Web UI   %s", r.temporal.UIURL())
	for _, h := range r.hospitals {
		r.tell("  %-16s  %s, faults: starter sandbox faults --control %s", h.profile, h.ehr.BaseURL(), h.ehr.ControlURL())
	}
	r.tell("  Logs              %s\n", filepath.Join(r.shown, "logs"))
}

// onboarder takes one hospital from nothing to live, and compares it with Cura then.
type onboarder struct {
	*rehearsal
	*hospital
	began  time.Time
	listed store.Listed
	// states are those of the onboarding's steps, as they were told last.
	states map[string]string
	// moved says that the hospital's data has moved, or why it couldn't.
	moved    bool
	movedErr error
}

// The org and the connection of a hospital.
const rehearsalConnection = "ehr"

func (h *hospital) org() string { return "rehearsal-" + h.profile }

func (h *hospital) ref() string { return h.org() + "/" + rehearsalConnection }

// rehearse does it all. What goes wrong is part of the outcome: the other hospitals go on.
func (o *onboarder) rehearse(ctx context.Context) outcome {
	comparison, err := o.toLive(ctx)
	out := o.outcome(ctx, comparison)
	if err != nil && out.Why == "" {
		out.Why = explain(err)
	}
	out.Seconds = float64(time.Since(o.began).Milliseconds()) / 1000
	switch {
	case ctx.Err() != nil:
	case out.clean():
		o.show("live after %.0f s; nothing is missing, extra or changed", out.Seconds)
	default:
		o.show("phase %s after %.0f s: %s", out.Phase, out.Seconds, out.verdict())
	}
	return out
}

func (o *onboarder) toLive(ctx context.Context) (*workflows.ReconcileResult, error) {
	if err := o.connect(ctx); err != nil {
		return nil, err
	}
	if err := o.ehr.SetFaults(o.faults()); err != nil {
		return nil, fmt.Errorf("setting the faults: %w", err)
	}
	monitor, interval := rehearsalMonitor, rehearsalInterval
	if o.c.IsSet("monitor") {
		monitor = o.c.Duration("monitor")
	}
	if o.c.IsSet("interval") {
		interval = o.c.Duration("interval")
	}
	// On a busy machine a sync may take several intervals, the more so when the EHR asks for pauses.
	err := o.command(ctx, "onboard", o.ref(), "--monitor", monitor.String(), "--interval", interval.String(), "--max-lag", (5 * time.Minute).String())
	if err != nil {
		return nil, err
	}
	status, err := watchOnboarding(ctx, o.session, o.tc, o.listed, o.report)
	switch {
	case err != nil:
		return nil, err
	case o.movedErr != nil:
		return nil, fmt.Errorf("changing the EHR's data: %w", o.movedErr)
	case status.Phase != cura.PhaseLive:
		return nil, errors.New(status.Why)
	case !o.moved:
		return nil, errors.New("the monitoring window was over before it was looked at, and nothing was changed at the EHR; give a longer one with --monitor")
	}
	return o.compare(ctx)
}

// connect makes the org, the connection, and the roster where the vendor's EHR needs one.
func (o *onboarder) connect(ctx context.Context) error {
	if err := o.command(ctx, "org", "add", o.org()); err != nil {
		return err
	}
	args := []string{
		"connection", "add", "--org", o.org(), "--name", rehearsalConnection, "--base-url", o.ehr.BaseURL(), "--client-id", o.ehr.ClientID(),
		"--secret-file", filepath.Join(o.shown, secretFile), "--ca-file", filepath.Join(o.shown, caFile),
		"--match", "mrn:" + o.ehr.MRNSystem(), "--profile", o.profile,
	}
	if err := o.command(ctx, append(args, o.flags...)...); err != nil {
		return err
	}
	var err error
	if o.listed, err = o.session.store.FindConnection(ctx, o.ref()); err != nil || o.roster == nil {
		return err
	}
	command, err := o.roster(o.hospital)
	if err != nil {
		return err
	}
	return o.command(ctx, command...)
}

// report tells each step of the onboarding, and has the hospital's data move once the monitoring window has begun.
func (o *onboarder) report(status workflows.OnboardingStatus) {
	if o.states == nil {
		o.states = map[string]string{}
	}
	for _, step := range status.Steps {
		if step.State == "pending" || o.states[step.Name] == step.State {
			continue
		}
		o.states[step.Name] = step.State
		o.show("%s", strings.TrimRight(fmt.Sprintf("%-10s  %-7s  %s", step.Name, step.State, step.Text), " "))
	}
	if status.Phase == cura.PhaseMonitoring && !status.Window.Began.IsZero() && !o.moved && o.movedErr == nil {
		o.movedErr = o.move()
		o.moved = o.movedErr == nil
	}
}

// move changes, adds, invalidates and deletes resources at the EHR, which asks for absurd pauses from then on.
func (o *onboarder) move() error {
	if err := o.ehr.SetFaults(o.windowFaults()); err != nil {
		return err
	}
	done, err := o.ehr.Rehearse(o.c.Context)
	if err != nil {
		return err
	}
	touched := map[string]bool{}
	for _, change := range done.Done {
		touched[change.Type+"/"+change.ID] = true
	}
	if err := o.deleteOne(touched); err != nil {
		return err
	}
	o.show("at the EHR, %d resources were changed, %d added, %d invalidated and 1 deleted", done.Changed, done.Added, done.Invalidated)
	return nil
}

// compare brings the last changes in, has what differs mended as every night, and compares. A resource that an EHR of
// snapshots doesn't serve any more counts as gone after two whole reads without it, hence two syncs.
func (o *onboarder) compare(ctx context.Context) (*workflows.ReconcileResult, error) {
	if err := o.ehr.SetFaults(sandbox.Faults{}); err != nil {
		return nil, err
	}
	for range 2 {
		if err := o.command(ctx, "sync", o.ref()); err != nil {
			return nil, err
		}
	}
	if err := o.command(ctx, "reconcile", o.ref(), "--repair"); err != nil {
		return nil, err
	}
	o.show("$ starter reconcile %s --output json", o.ref())
	out, err := o.starter(ctx, "reconcile", o.ref(), "--output", "json")
	var result workflows.ReconcileResult
	if json.Unmarshal(out, &result) == nil {
		return &result, nil // that something differs is an error of the command, and the outcome here
	}
	if err == nil {
		err = errors.New("starter reconcile printed no JSON")
	}
	return nil, err
}

// command runs one command line, and shows it with what it prints.
func (o *onboarder) command(ctx context.Context, args ...string) error {
	o.show("$ starter %s", strings.Join(args, " "))
	out, err := o.starter(ctx, args...)
	for line := range strings.Lines(string(out)) {
		o.show("  %s", strings.TrimRight(line, "\n"))
	}
	return err
}

// starter runs one command line as a person would: as a program of its own, since one process can run only one command
// at a time. It gives what was printed on standard output, also beside an error.
func (o *onboarder) starter(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, o.program, args...) //nolint:gosec // it is this very program
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("starter %s: %s", args[0], strings.TrimPrefix(strings.TrimSpace(errs.String()), "starter: "))
	}
	return out.Bytes(), err
}

// show tells something of this hospital, a line at a time: the others talk at once.
func (o *onboarder) show(format string, args ...any) {
	o.telling.Lock()
	defer o.telling.Unlock()
	o.tell("%-8s  %s", o.profile, fmt.Sprintf(format, args...))
}
