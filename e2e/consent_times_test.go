package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestARevocationIsEffectiveInTime measures it from the command on, with 50 notes queued and one in flight for each of 20
// patients: how long until nothing more is let through, and until it is effective. What is asserted is the bound that holds
// on any machine, also when the worker that sends has died.
func TestARevocationIsEffectiveInTime(t *testing.T) {
	t.Parallel()
	for _, dead := range []bool{false, true} {
		name := "the worker is well"
		if dead {
			name = "the worker is dead"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newConsentRig(t, hospital{patients: 20, grace: 5 * time.Second, silent: true})
			r.faults(`{"writes":{"latency_ms":100}}`)
			for _, s := range r.patients {
				r.grant(s)
				r.add(s, 51)
			}
			worker := r.start("", "CURA_SEND_SLOTS=32")
			require.Eventually(t, func() bool {
				return r.count("(SELECT DISTINCT profile_id FROM push.ledger WHERE state = 'sent') AS p") >= 15 || r.count("push.ledger WHERE state = 'confirmed'") > 40
			}, 30*time.Second, 5*time.Millisecond)
			if dead {
				require.NoError(t, worker.Kill())
			}
			halt, effective := make([]time.Duration, len(r.patients)), make([]time.Duration, len(r.patients))
			var officers sync.WaitGroup
			for n, s := range r.patients {
				officers.Go(func() {
					began := time.Now()
					r.change(s, "withdraw")
					halt[n] = time.Since(began)
					r.settle(s)
					effective[n] = time.Since(began)
				})
			}
			officers.Wait()
			v := r.requireObeyed()
			require.Positive(t, v.Disclosures)
			for _, one := range effective {
				require.Less(t, one, r.grace+3*time.Second)
			}
			t.Logf("20 patients at once: halt_ms p50 %d p99 %d, effective_ms p50 %d p99 %d; %d of %d items had left, %d cancelled",
				share(halt, 0.5), share(halt, 0.99), share(effective, 0.5), share(effective, 0.99), v.Disclosures, r.count("push.outbox"),
				r.count("push.outbox WHERE state = 'cancelled'"))
		})
	}
}

// share is the duration, in milliseconds, that a share of all doesn't exceed.
func share(of []time.Duration, part float64) int64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))].Milliseconds()
}
