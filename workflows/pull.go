package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// defaultThrottleBudget is how long an EHR may keep a type waiting without one page coming through.
const defaultThrottleBudget = 6 * time.Hour

// readers is how many types of a connection are read at once.
const readers = 2

// leasePause is how long a run waits before it asks again whether another one has let go of a type.
const leasePause = 10 * time.Second

// yieldPause is how long a type waits that has stepped aside: for others of its org, or for somebody who goes ahead.
const yieldPause = 2 * time.Second

// resumePoll is how often a paused backfill looks whether it may go on, where no signal tells it.
const resumePoll = time.Minute

// reader reads the types of one run: Patient first, since everything hangs on patients, then Consent where it says whose clinical
// types may be read, then the others side by side.
type reader struct {
	target activities.Target
	run    string
	kind   cura.RunKind
	// in is what every type is read with, but for the type itself.
	in activities.PullInput
	// patient waits for another run that is reading a type, and for an operator who has paused it.
	patient bool
	// throttleBudget bounds by elapsed time what no count of attempts bounds: waiting for the EHR, and for another run.
	throttleBudget time.Duration
	// held is since when no page of a type has come through.
	held map[cura.ResourceType]time.Time
	// ended are the types that didn't come to their end, and why.
	ended map[cura.ResourceType]activities.Details
	// needPatients stops the run when Patient doesn't come to its end: a first read without patients would set every
	// record aside.
	needPatients bool
	// consentFirst is BeginRun's to say; the result in an older history doesn't, and replays as it went.
	consentFirst bool
	// stopped says that the history has grown long: the run goes on in a new one.
	stopped bool
	// resumes counts the signals that say that an operator has resumed the connection.
	resumes int
}

// begin opens the run, and looks after the roster where some type is read patient by patient. It gives the types to read.
func (r *reader) begin(ctx workflow.Context, types []cura.ResourceType) ([]cura.ResourceType, error) {
	if r.ended == nil {
		r.ended = map[cura.ResourceType]activities.Details{}
	}
	if r.held == nil {
		r.held = map[cura.ResourceType]time.Time{}
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		for signals := workflow.GetSignalChannel(ctx, SignalResumed); signals.Receive(ctx, nil); {
			r.resumes++
		}
	})
	var a *activities.Activities
	var begun activities.BeginResult
	err := workflow.ExecuteActivity(quick(ctx, "begin the run"), a.BeginRun, activities.BeginInput{
		Target: r.target, Run: r.run, Kind: r.kind, WorkflowID: workflow.GetInfo(ctx).WorkflowExecution.ID, Types: types,
	}).Get(ctx, &begun)
	if err != nil {
		return nil, err
	}
	r.consentFirst = begun.ConsentFirst
	for _, t := range begun.Paused {
		r.ended[t] = paused(t)
	}
	var left []cura.ResourceType
	for _, t := range begun.Types {
		if _, ended := r.ended[t]; !ended {
			left = append(left, t)
		}
	}
	if begun.ByPatient && len(r.in.Patients) == 0 {
		return left, r.refreshRoster(ctx, left)
	}
	return left, nil
}

// refreshRoster looks after the roster. Where that fails the run reads whom it knows; only what stops the whole connection
// ends it, and is told by each type.
func (r *reader) refreshRoster(ctx workflow.Context, types []cura.ResourceType) error {
	var a *activities.Activities
	for {
		var result activities.RosterResult
		err := workflow.ExecuteActivity(reading(ctx, QueueInteractive, "refresh the roster"), a.RefreshRoster, r.target).Get(ctx, &result)
		if temporal.IsCanceledError(err) {
			return err
		}
		if d := activities.DetailsOf(err); err != nil && activities.WholeConnection(d.Kind) {
			for _, t := range types {
				r.ended[t] = d
			}
		}
		if err != nil || !result.More {
			return nil //nolint:nilerr // the run reads whom it knows
		}
	}
}

func paused(t cura.ResourceType) activities.Details {
	return activities.Details{Kind: fault.Paused, Detail: "an operator has paused " + string(t), Fix: "It goes on after: starter resume"}
}

// read reads all the types. Only cancellation is an error; everything else ends a type and is kept in ended.
func (r *reader) read(ctx workflow.Context, types []cura.ResourceType) error {
	if len(types) > 0 && types[0] == cura.Patient {
		if err := r.readType(ctx, cura.Patient); err != nil {
			return err
		}
		types = types[1:]
		if r.stopped {
			return nil
		}
		if d, ended := r.ended[cura.Patient]; ended && (r.needPatients || activities.WholeConnection(d.Kind)) {
			kind := d.Kind
			if activities.TypeOff(kind) {
				kind = fault.Config // Patient is switched off; these aren't, and count as not read
			}
			for _, t := range types {
				r.ended[t] = activities.Details{Kind: kind, Detail: "not read, because Patient wasn't: " + d.Detail, Fix: d.Fix}
			}
			return nil
		}
	}
	if r.consentFirst {
		var err error
		if types, err = r.readConsent(ctx, types); err != nil || r.stopped {
			return err
		}
	}
	slots := workflow.NewSemaphore(ctx, readers)
	group := workflow.NewWaitGroup(ctx)
	var cancelled error
	for _, t := range types {
		group.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer group.Done()
			if err := slots.Acquire(ctx, 1); err != nil {
				cancelled = err
				return
			}
			defer slots.Release(1)
			if err := r.readType(ctx, t); err != nil {
				cancelled = err
			}
		})
	}
	group.Wait(ctx)
	return cancelled
}

// readConsent reads Consent before the clinical types, and gives those. Where it can't be read nobody knows who denies, so they
// aren't read either; of an EHR that has no Consents, Cura's own decide.
func (r *reader) readConsent(ctx workflow.Context, types []cura.ResourceType) ([]cura.ResourceType, error) {
	if i := slices.Index(types, cura.Consent); i >= 0 {
		if err := r.readType(ctx, cura.Consent); err != nil {
			return nil, err
		}
		types = slices.Delete(slices.Clone(types), i, i+1)
	}
	d, ended := r.ended[cura.Consent]
	if !ended || d.Kind == fault.Unsupported {
		return types, nil
	}
	kind, fix := d.Kind, d.Fix
	if activities.TypeOff(kind) {
		kind, fix = fault.Config, "Ask the hospital to let Consent be read, or change the policy: starter connection edit --pull-consent"
	}
	for _, t := range types {
		r.ended[t] = activities.Details{Kind: kind, Detail: "not read, because Consent wasn't: " + d.Detail, Fix: fix}
	}
	return nil, nil
}

// readType reads one type to its end, chunk by chunk.
func (r *reader) readType(ctx workflow.Context, t cura.ResourceType) error {
	if _, ended := r.ended[t]; ended {
		return nil
	}
	var a *activities.Activities
	in := r.in
	in.Target, in.Run, in.Type = r.target, r.run, t
	queue := QueueBulk
	if in.Ahead {
		queue = QueueInteractive
	}
	if r.held[t].IsZero() {
		r.held[t] = workflow.Now(ctx)
	}
	for yielded := false; ; {
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			r.stopped = true
			return nil
		}
		var result activities.PullResult
		err := workflow.ExecuteActivity(ofOrg(reading(ctx, queue, "read "+string(t)), r.target.Org, in.Ahead), a.PullType, in).Get(ctx, &result)
		if temporal.IsCanceledError(err) {
			return err
		}
		pause, why := result.Wait, "the EHR asked for a pause"
		tooLong := activities.Details{Kind: fault.Throttled, Attempts: 1, Detail: "the EHR has let no page through for " + r.throttleBudget.String()}
		switch {
		case err != nil:
			d := activities.DetailsOf(err)
			if d.Kind != fault.Busy || !r.patient && !yielded {
				return r.giveUp(ctx, t, d)
			}
			pause, why = leasePause, "another run is reading "+string(t)
			tooLong = activities.Details{
				Kind: fault.Busy, Attempts: 1, Detail: why + ", and has been for " + r.throttleBudget.String(),
				Fix: "Wait for that run to end, or end it, then retry",
			}
		case result.Paused && !r.patient:
			r.ended[t] = paused(t)
			return nil
		case result.Paused:
			if err := r.awaitResume(ctx, t); err != nil {
				return err
			}
			continue
		case result.Done:
			return nil
		case result.Yielded:
			pause, why = yieldPause, "others are served first"
		}
		yielded = yielded && err != nil || result.Yielded
		if result.Pages > 0 {
			r.held[t] = workflow.Now(ctx)
		}
		switch {
		case pause == 0:
			continue
		case workflow.Now(ctx).Sub(r.held[t]) > r.throttleBudget:
			return r.giveUp(ctx, t, tooLong)
		}
		if err := workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: why}).Get(ctx, nil); err != nil {
			return err
		}
	}
}

// awaitResume waits until an operator resumes the connection or the type. The pause stands in the database; a signal only
// says that it is worth looking again.
func (r *reader) awaitResume(ctx workflow.Context, t cura.ResourceType) error {
	workflow.SetCurrentDetails(ctx, "**Paused by an operator: "+string(t)+".** It goes on after: `starter resume "+string(r.target.Connection)+"`")
	before := r.resumes
	if _, err := workflow.AwaitWithTimeout(ctx, resumePoll, func() bool { return r.resumes > before }); err != nil {
		return err
	}
	r.held[t] = workflow.Now(ctx) // nobody has kept it waiting but us
	workflow.SetCurrentDetails(ctx, readingEverything)
	return nil
}

// giveUp ends a type. What only this type suffers from is kept for people; what stops the whole connection is told once,
// by whoever runs the reader; a lease that another run holds is that run's business.
func (r *reader) giveUp(ctx workflow.Context, t cura.ResourceType, d activities.Details) error {
	r.ended[t] = d
	if activities.WholeConnection(d.Kind) || d.Kind == fault.Busy {
		return nil
	}
	var a *activities.Activities
	return workflow.ExecuteActivity(quick(ctx, "give up "+string(t)), a.GiveUp,
		activities.GiveUpInput{Target: r.target, Run: r.run, Type: t, Details: d}).Get(ctx, nil)
}
