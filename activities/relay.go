package activities

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/store"
)

// sends are the writes that this process has under way, by patient, so that a halt can hurry them.
type sends struct {
	mu   sync.Mutex
	next int
	all  map[int]underWay
}

type underWay struct {
	profile cura.ProfileID
	cancel  context.CancelFunc
}

// haltPatience is how long a write that is under way when its patient's disclosures are halted may wait for its answer. What
// it hasn't sent by then isn't sent; what it has is looked up.
const haltPatience = 500 * time.Millisecond

// begin notes a write of a patient. It ends after limit, or haltPatience after the patient's disclosures are halted.
func (s *sends) begin(ctx context.Context, profile cura.ProfileID, limit time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[int]underWay{}
	}
	s.next++
	n := s.next
	s.all[n] = underWay{profile, cancel}
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, n)
	}
}

// hurry ends the writes of a patient that don't end by themselves soon.
func (s *sends) hurry(profile cura.ProfileID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.all {
		if u.profile == profile {
			time.AfterFunc(haltPatience, u.cancel)
		}
	}
}

// The relay's times: a sweep finds what no notification told of, and what a worker claimed that has died.
const (
	sweepEvery = 5 * time.Second
	sweepAgain = 500 * time.Millisecond // after one that failed
	claimFor   = 30 * time.Second
	// A change of consent isn't kept for longer than a revocation may take besides its grace: that two settle it does no harm.
	claimConsent = 2 * time.Second
	relayBatch   = 500
	relayers     = 16
)

// Deliverer starts a queue's workflow, or wakes the one that runs.
type Deliverer func(ctx context.Context, temporal client.Client, in DeliverInput) error

// Relay wakes what is due, in all orgs, until ctx ends: the settlement of consents that have changed, and the workflows of
// queues that aren't empty. The two don't wait for each other: consent is settled while Temporal is down. Any number of workers
// may run it. What fails is tried again by the next sweep.
func (a *Activities) Relay(ctx context.Context, deliver Deliverer) {
	r := relay{a: a, consents: make(chan struct{}, 1), deliveries: make(chan struct{}, 1)}
	var loops sync.WaitGroup
	loops.Go(func() { r.listen(ctx) })
	loops.Go(func() {
		r.loop(ctx, store.WakeConsent, claimConsent, r.consents, func(w store.Wakeup) error {
			_, err := a.store.SettleConsent(ctx, w.Org, cura.ProfileID(w.Ref), gate.Permits)
			return err
		})
	})
	loops.Go(func() {
		r.loop(ctx, store.WakeDelivery, claimFor, r.deliveries, func(w store.Wakeup) error {
			return deliver(ctx, a.temporal, DeliverInput{Target: Target{Org: w.Org, Connection: w.Connection}, Link: w.Ref})
		})
	})
	loops.Wait()
}

type relay struct {
	a                    *Activities
	consents, deliveries chan struct{}
}

// listen passes notifications on, over a session that is opened again when it is lost.
func (r relay) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.a.store.Listen(ctx, func() {
			for _, wake := range []chan struct{}{r.consents, r.deliveries} {
				select {
				case wake <- struct{}{}:
				default: // it is awake already
				}
			}
		}, r.a.sends.hurry)
		if err != nil && ctx.Err() == nil {
			r.a.log.WarnContext(ctx, "listening for what is due", "kind", string(fault.KindOf(err)))
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

// loop acts on what of a kind is due, when it is told of it, when its time comes, and every sweepEvery.
func (r relay) loop(ctx context.Context, kind string, hold time.Duration, wake <-chan struct{}, act func(store.Wakeup) error) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	var acting errgroup.Group
	acting.SetLimit(relayers)
	defer func() { _ = acting.Wait() }() // what failed was logged
	for {
		next, err := r.sweep(ctx, kind, hold, func(w store.Wakeup) {
			acting.Go(func() error {
				r.warn(ctx, "acting on what is due", kind, act(w))
				return nil
			})
		})
		if ctx.Err() != nil {
			return
		}
		r.warn(ctx, "sweeping what is due", kind, err)
		var soon <-chan time.Time
		switch {
		case err != nil:
			soon = time.After(sweepAgain)
		case next != nil && time.Until(*next) < sweepEvery:
			soon = time.After(max(time.Until(*next), 10*time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-ticker.C:
		case <-soon:
		}
	}
}

func (r relay) warn(ctx context.Context, what, kind string, err error) {
	if err != nil && ctx.Err() == nil {
		r.a.log.WarnContext(ctx, "the relay failed at something; it is tried again", "at", what, "wakeup", kind, "kind", string(fault.KindOf(err)))
	}
}

// sweep claims all that is due and hands it on, and tells when the next thing is. It doesn't wait for what it hands on: a
// revocation that waits for a send delays nobody else's.
func (r relay) sweep(ctx context.Context, kind string, hold time.Duration, act func(store.Wakeup)) (next *time.Time, err error) {
	for {
		due, next, err := r.a.store.DueWakeups(ctx, kind, relayBatch)
		if err != nil || len(due) == 0 {
			return next, err
		}
		won := make([]bool, len(due))
		var group errgroup.Group
		group.SetLimit(relayers)
		for i, w := range due {
			group.Go(func() (err error) {
				won[i], err = r.a.store.Claim(ctx, w, hold)
				return err
			})
		}
		err = group.Wait()
		for i, w := range due {
			if won[i] {
				act(w)
			}
		}
		if err != nil {
			return next, err
		}
	}
}
