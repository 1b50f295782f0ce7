package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestConsentThin is the plain way: without consent denied, with it delivered, and after a revocation denied again.
func TestConsentThin(t *testing.T) {
	t.Parallel()
	r := newConsentRig(t, hospital{patients: 2, grace: time.Second})
	r.start("")
	s := r.patients[0]
	first := r.add(s, 1)[0]
	r.await(first, "denied")
	r.grant(s)
	second := r.add(s, 1)[0]
	r.await(second, "delivered")
	r.change(s, "withdraw")
	r.settle(s)
	r.await(r.add(s, 1)[0], "denied")
	r.requireSettled(20 * time.Second)
	v := r.requireObeyed()
	require.Equal(t, 1, v.Disclosures)
	require.Equal(t, 2, v.Exempt, "the events that tell of the grant and of the revocation")
	require.Zero(t, v.Strangers)
}

// TestAStuckRevocationDelaysNobodyElses has one patient's sender frozen while it holds their consent, so that their revocation
// waits for seconds; another patient's, that comes later and that nobody but the relay settles, is effective meanwhile.
func TestAStuckRevocationDelaysNobodyElses(t *testing.T) {
	t.Parallel()
	r := newConsentRig(t, hospital{patients: 2, grace: 5 * time.Second, silent: true})
	stuck, other := r.patients[0], r.patients[1]
	r.grant(stuck)
	r.grant(other)
	frozen := r.start("push/head-held:1", "CURA_FAILPOINT_SIGNAL=STOP")
	r.add(stuck, 1)
	frozen.waitAt("push/head-held")
	r.start("")
	r.change(stuck, "withdraw")
	claimed := func() bool {
		return r.count("directory.wakeups WHERE kind = 'consent' AND due_at > clock_timestamp()") == 1
	}
	require.Eventually(t, claimed, 20*time.Second, 10*time.Millisecond, "a relay has begun to settle it")
	r.change(other, "withdraw")
	open := func(s *subject) int {
		return r.count("cura.consent_halts WHERE effective_at IS NULL AND profile_id = $1::uuid", string(s.profile))
	}
	require.Eventually(t, func() bool { return open(other) == 0 }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, 1, open(stuck))
	frozen.signal(syscall.SIGCONT)
	r.requireSettled(time.Minute)
	r.requireObeyed()
}
