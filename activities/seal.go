package activities

import (
	"context"
	"sync"
	"time"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// The sealer's times: what no change of consent has sealed is sealed by the next sweep.
const (
	sealEvery   = time.Minute
	listenAgain = time.Second
	// settledAtOnce is how many orgs can wait to be sealed at once; one more waits for the sweep.
	settledAtOnce = 1024
)

// SealAudit seals the audit logs of all orgs every minute, and an org's as soon as a change of consent is settled, until ctx ends. Any
// number of workers may run it. What fails is tried again by the next sweep; one org's log doesn't hold up another's.
func (a *Activities) SealAudit(ctx context.Context, key *seal.Key, folder *seal.Folder) {
	settled := make(chan cura.OrgID, settledAtOnce)
	var loops sync.WaitGroup
	loops.Go(func() { a.listenSettled(ctx, settled) })
	loops.Go(func() {
		for ctx.Err() == nil {
			for org := range nextSettled(ctx, settled) {
				a.sealOrg(ctx, org, key, folder)
			}
		}
	})
	loops.Go(func() {
		ticker := time.NewTicker(sealEvery)
		defer ticker.Stop()
		for {
			a.sealAll(ctx, key, folder)
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
	loops.Wait()
}

// listenSettled passes notifications on, over a session that is opened again when it is lost.
func (a *Activities) listenSettled(ctx context.Context, settled chan<- cura.OrgID) {
	for ctx.Err() == nil {
		err := a.store.ListenSettled(ctx, func(org cura.OrgID) {
			select {
			case settled <- org:
			default: // the sweep seals it
			}
		})
		if err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "listening for consents that are settled", "kind", string(fault.KindOf(err)))
			select {
			case <-ctx.Done():
			case <-time.After(listenAgain):
			}
		}
	}
}

// nextSettled waits for an org, and gives it and those that have come meanwhile, each once; none when ctx ends.
func nextSettled(ctx context.Context, settled <-chan cura.OrgID) map[cura.OrgID]bool {
	select {
	case <-ctx.Done():
		return nil
	case org := <-settled:
		orgs := map[cura.OrgID]bool{org: true}
		for range len(settled) {
			orgs[<-settled] = true
		}
		return orgs
	}
}

func (a *Activities) sealAll(ctx context.Context, key *seal.Key, folder *seal.Folder) {
	orgs, err := a.store.AuditedOrgs(ctx)
	if err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "listing the orgs whose audit logs are to be sealed", "kind", string(fault.KindOf(err)))
	}
	for _, org := range orgs {
		if ctx.Err() != nil {
			return
		}
		a.sealOrg(ctx, org.ID, key, folder)
	}
}

// sealOrg seals what of an org's log isn't. That a log and its last head don't fit together is for people: it is said each time.
func (a *Activities) sealOrg(ctx context.Context, org cura.OrgID, key *seal.Key, folder *seal.Folder) {
	_, err := a.store.SealAudit(ctx, org, key, folder)
	if err != nil && ctx.Err() == nil {
		a.log.ErrorContext(ctx, "the audit log couldn't be sealed", "org_id", string(org), "kind", string(fault.KindOf(err)), "reason", fault.Public(err))
	}
}
