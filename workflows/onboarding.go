package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
)

// OnboardingInput says which connection is onboarded, and how.
type OnboardingInput struct {
	activities.Target
	// Pilot is how many patients are piloted; default 10.
	Pilot int `json:"pilot"`
	// PilotThreshold is the share of pilot patients that may need a person; default 0.2.
	PilotThreshold float64 `json:"pilot_threshold"`
	// RequireApproval makes it wait for a person between pilot and backfill.
	RequireApproval bool `json:"require_approval"`
	// Interval of the schedule; default 5 minutes.
	Interval time.Duration `json:"interval"`
	// Monitor is the length of the monitoring window; default 72 hours.
	Monitor    time.Duration   `json:"monitor"`
	Thresholds cura.Thresholds `json:"thresholds"`
	// State is carried from one history to the next when the workflow continues as new.
	State *OnboardingStatus `json:"state,omitempty"`
}

func (in OnboardingInput) withDefaults() OnboardingInput {
	if in.Pilot == 0 {
		in.Pilot = 10
	}
	if in.PilotThreshold == 0 {
		in.PilotThreshold = 0.2
	}
	if in.Interval == 0 {
		in.Interval = 5 * time.Minute
	}
	if in.Monitor == 0 {
		in.Monitor = 72 * time.Hour
	}
	in.Thresholds = in.Thresholds.WithDefaults(in.Interval)
	return in
}

// OnboardingStatus is everything that an onboarding knows of itself: what the query answers, and what a new history
// begins with.
type OnboardingStatus struct {
	Phase    cura.Phase    `json:"phase"`
	Health   cura.Health   `json:"health"`
	WaitsFor cura.WaitsFor `json:"waits_for"`
	Why      string        `json:"why,omitempty"`
	Commands []string      `json:"commands,omitempty"`
	Steps    []Step        `json:"steps"`

	// Strategies say how each type is read, and why, as the endpoint test has found.
	Strategies []cura.StrategyChoice `json:"strategies,omitempty"`

	PilotRun    string                 `json:"pilot_run,omitempty"`
	Pilot       activities.PilotResult `json:"pilot"`
	BackfillRun string                 `json:"backfill_run,omitempty"`
	Backfill    ReadResult             `json:"backfill"`
	Window      Window                 `json:"window"`
	Said        Said                   `json:"said,omitzero"`
}

// Said is what a person has said and what hasn't been done yet: a new history must hear it too.
type Said struct {
	// Answer is the update that moves a waiting step on.
	Answer string `json:"answer,omitempty"`
	// Actor is who said it.
	Actor string `json:"actor,omitempty"`
	// Aborted is why the onboarding ends; empty: it goes on.
	Aborted string `json:"aborted,omitempty"`
}

// Step is one step of the onboarding, in words.
type Step struct {
	Name string `json:"name"`
	// State is pending, running, done, warning or waiting.
	State   string     `json:"state"`
	Text    string     `json:"text,omitempty"`
	Began   *time.Time `json:"began,omitempty"`
	Ended   *time.Time `json:"ended,omitempty"`
	Attempt int        `json:"attempt,omitempty"`
}

// Window is the monitoring window.
type Window struct {
	Began time.Time `json:"began,omitzero"`
	Ends  time.Time `json:"ends,omitzero"`
	// JudgedFrom is since when syncs count: later than Began after a person went on.
	JudgedFrom  time.Time       `json:"judged_from,omitzero"`
	Evaluations int             `json:"evaluations"`
	Last        cura.Evaluation `json:"last"`
}

// phases lists the phases that are steps, in order.
func phases() []cura.Phase {
	return []cura.Phase{
		cura.PhaseTesting, cura.PhasePilot, cura.PhaseApproval, cura.PhaseBackfill, cura.PhaseMonitoring, cura.PhaseLive,
	}
}

// Onboarding takes a connection from its endpoint test to live. A failed step never ends it: it says what is wrong and
// which command moves it on, and waits.
func Onboarding(ctx workflow.Context, in OnboardingInput) (OnboardingStatus, error) {
	o := &onboarding{in: in.withDefaults()}
	if err := o.setup(ctx); err != nil {
		return OnboardingStatus{}, err
	}
	return o.run(ctx)
}

type onboarding struct {
	in     OnboardingInput
	status OnboardingStatus
	// problem is what the workflow waits for a person to solve; nil: it waits for nobody.
	problem *problem
	cancel  workflow.CancelFunc
}

// problem is what keeps a step from going on.
type problem struct {
	waitsFor cura.WaitsFor
	why      string
	commands []string
}

func (o *onboarding) setup(ctx workflow.Context) error {
	if o.in.State != nil {
		o.status = *o.in.State
	} else {
		o.status = OnboardingStatus{Phase: cura.PhaseTesting, Health: cura.HealthOK, WaitsFor: cura.WaitsForNobody}
		for _, p := range phases() {
			o.status.Steps = append(o.status.Steps, Step{Name: string(p), State: "pending"})
		}
	}
	if err := workflow.SetQueryHandler(ctx, QueryStatus, func() (OnboardingStatus, error) { return o.status, nil }); err != nil {
		return err
	}
	return o.setUpdates(ctx)
}

func (o *onboarding) run(ctx workflow.Context) (OnboardingStatus, error) {
	for !o.aborting(ctx) {
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return o.status, o.continueAsNew(ctx)
		}
		stepCtx, cancel := workflow.WithCancel(ctx)
		o.cancel = cancel
		next, p := o.step(stepCtx)
		cancel()
		switch {
		case p == nil && o.status.Phase == cura.PhaseLive:
			return o.status, nil
		case o.aborting(ctx): // the step was cut short: whatever it came to, it's over
		case p != nil:
			o.wait(ctx, *p)
		case next != again:
			o.done(ctx, next)
		}
	}
	o.abort(ctx)
	return o.status, nil
}

// aborting says whether a person has ended the onboarding, or the workflow was cancelled. It is asked before each step:
// a step that failed isn't done once more on the way out.
func (o *onboarding) aborting(ctx workflow.Context) bool {
	if o.status.Said.Aborted == "" && ctx.Err() != nil {
		o.status.Said.Aborted = "the workflow was cancelled"
	}
	return o.status.Said.Aborted != ""
}

// again says that the step isn't over: the monitoring window goes on in the next turn of the loop.
const again cura.Phase = ""

// step does what the phase is about and says which comes next, or what stands in the way.
func (o *onboarding) step(ctx workflow.Context) (cura.Phase, *problem) {
	if o.status.Phase != cura.PhaseLive { // that one is told once the pilot is purged
		o.begin(ctx)
	}
	switch o.status.Phase {
	case cura.PhaseNew, cura.PhaseTesting:
		return cura.PhasePilot, o.test(ctx)
	case cura.PhasePilot:
		return cura.PhaseApproval, o.pilot(ctx)
	case cura.PhaseApproval:
		return cura.PhaseBackfill, o.approval()
	case cura.PhaseBackfill:
		return cura.PhaseMonitoring, o.backfill(ctx)
	case cura.PhaseMonitoring:
		over, p := o.monitor(ctx)
		if p == nil && !over {
			return again, nil
		}
		return cura.PhaseLive, p
	case cura.PhaseLive:
		return cura.PhaseLive, o.live(ctx)
	case cura.PhaseAborted:
	}
	return cura.PhaseLive, nil
}

func (o *onboarding) current() *Step {
	for i := range o.status.Steps {
		if o.status.Steps[i].Name == string(o.status.Phase) {
			return &o.status.Steps[i]
		}
	}
	return &o.status.Steps[0]
}

// begin marks the phase's step as running, once.
func (o *onboarding) begin(ctx workflow.Context) {
	s := o.current()
	if s.State == "running" {
		return
	}
	now := workflow.Now(ctx)
	s.State, s.Began, s.Ended, s.Text = "running", &now, nil, ""
	s.Attempt++
	o.show(ctx)
}

// done marks the phase's step as done and goes to the next.
func (o *onboarding) done(ctx workflow.Context, next cura.Phase) {
	s := o.current()
	now := workflow.Now(ctx)
	s.Ended = &now
	if s.State == "running" {
		s.State = "done"
	}
	o.status.Phase = next
	o.status.Said = Said{} // what follows isn't that person's doing
}

// wait tells what is wrong and which command helps, and waits until a person has said something.
func (o *onboarding) wait(ctx workflow.Context, p problem) {
	o.problem, o.status.Said.Answer = &p, ""
	s := o.current()
	s.State, s.Text = "waiting", p.why
	o.status.Health, o.status.WaitsFor, o.status.Why, o.status.Commands = cura.HealthAttention, p.waitsFor, p.why, p.commands
	if p.waitsFor == cura.WaitsForApproval {
		o.status.Health = cura.HealthOK
	}
	o.show(ctx)
	// An error here is a cancellation; the loop sees it.
	_ = workflow.Await(ctx, func() bool { return o.status.Said.Answer != "" || o.status.Said.Aborted != "" })
	o.problem = nil
	o.status.Health, o.status.WaitsFor, o.status.Why, o.status.Commands = cura.HealthOK, cura.WaitsForNobody, "", nil
	if o.status.Said.Answer == "" {
		return
	}
	if p.waitsFor != cura.WaitsForApproval {
		s.State = "pending"
	}
}

// show tells everyone who looks where the onboarding stands: the database for the command line, search attributes and
// details for the Web UI.
func (o *onboarding) show(ctx workflow.Context) {
	if err := workflow.UpsertTypedSearchAttributes(ctx,
		AttributeOrg().ValueSet(string(o.in.Org)),
		AttributeConnection().ValueSet(string(o.in.Connection)),
		AttributePhase().ValueSet(string(o.status.Phase)),
		AttributeHealth().ValueSet(string(o.status.Health)),
		AttributeWaitsFor().ValueSet(string(o.status.WaitsFor)),
	); err != nil {
		workflow.GetLogger(ctx).Error("setting search attributes")
	}
	workflow.SetCurrentDetails(ctx, o.status.words())
	var a *activities.Activities
	health := o.status.Health
	if o.status.WaitsFor == cura.WaitsForApproval {
		health = cura.HealthAttention // it waits for a person all the same
	}
	summary := "record that it is " + string(o.status.Phase)
	if o.status.WaitsFor != cura.WaitsForNobody {
		summary = "record that it waits for a person: " + string(o.status.WaitsFor)
	}
	err := workflow.ExecuteActivity(quick(ctx, summary), a.RecordStanding, activities.StandingInput{
		Target: o.in.Target, Phase: o.status.Phase, Health: health, WaitsFor: o.status.WaitsFor, Why: o.status.Why,
		Commands: o.status.Commands, Actor: o.status.Said.Actor,
	}).Get(ctx, nil)
	if err != nil && !temporal.IsCanceledError(err) {
		// The workflow's own status stands; the database's copy is brought up to date at the next change.
		workflow.GetLogger(ctx).Error("recording where the onboarding stands")
	}
}

func (o *onboarding) continueAsNew(ctx workflow.Context) error {
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	in := o.in
	in.State = &o.status
	return workflow.NewContinueAsNewError(ctx, Onboarding, in)
}
