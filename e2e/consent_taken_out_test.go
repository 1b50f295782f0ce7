package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each safeguard of a send is taken out alone, in the case that it is there for: the judge must find what arrives then, and
// must find nothing in the same case with the safeguard in its place. Otherwise the campaigns would prove nothing.
func TestEachSafeguardIsMissed(t *testing.T) {
	t.Parallel()
	for _, safeguard := range []struct {
		name string
		play func(t *testing.T, off string) *consentRig
	}{{"lock", slowLine}, {"check", overtaken}, {"deadline-wait", lostSession}} {
		for _, off := range []string{safeguard.name, ""} {
			name := safeguard.name + " taken out"
			if off == "" {
				name = safeguard.name + " in place"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := safeguard.play(t, off)
				r.requireSettled(time.Minute)
				v := r.judge()
				if off == "" {
					r.requireObeyed()
					return
				}
				require.Equal(t, 1, v.AfterRevocation, "the judge sees what the safeguard prevents: %+v", v)
				require.Zero(t, v.WithoutConsent)
			})
		}
	}
}

// slowLine is what the lock is for: the bytes have left before the deadline, and arrive after it. The revocation must wait
// for the answer.
func slowLine(t *testing.T, off string) *consentRig {
	t.Helper()
	w := newWire()
	r := newConsentRig(t, hospital{patients: 1, grace: time.Second, wire: w, silent: true})
	s := r.patients[0]
	r.grant(s)
	r.start("", "CURA_FAILPOINT_OFF="+off)
	r.await(r.add(s, 1)[0], "delivered")

	held, release := w.hold()
	defer release()
	r.add(s, 1)
	<-held
	require.Eventually(t, func() bool {
		return r.count("push.ledger WHERE state = 'sent' AND send_deadline < clock_timestamp()") == 1
	}, 5*time.Second, time.Millisecond)
	r.terminate(listeners) // else the worker would break the write off soon
	r.change(s, "withdraw")
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		r.settle(s)
	}()
	require.Eventually(t, func() bool {
		return r.effective() || off == "" &&
			r.count("pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
	}, 5*time.Second, time.Millisecond)
	release()
	<-settled
	return r
}

// overtaken is what the check is for: the sender promises its send after the revoker has looked for such promises, and gets
// the lock once the revocation is effective.
func overtaken(t *testing.T, off string) *consentRig {
	t.Helper()
	r := newConsentRig(t, hospital{patients: 1, grace: 10 * time.Second, silent: true})
	s := r.patients[0]
	r.grant(s)
	worker := r.start("push/prepared:2,push/sent-marked:2", "CURA_FAILPOINT_SIGNAL=STOP", "CURA_FAILPOINT_OFF="+off)
	r.await(r.add(s, 1)[0], "delivered")
	r.add(s, 1)
	worker.waitAt("push/prepared")
	r.terminate(listeners) // else the worker would break the write off soon
	revoker := r.revoker(s, "withdraw", "consent/waited:1", "CURA_FAILPOINT_SIGNAL=STOP")
	revoker.waitAt("consent/waited")
	worker.signal(syscall.SIGCONT)
	worker.waitAt("push/sent-marked")
	revoker.signal(syscall.SIGCONT)
	<-revoker.Done()
	require.NoError(t, revoker.Err())
	worker.signal(syscall.SIGCONT)
	return r
}

// lostSession is what the deadline's wait is for: the lock went with the sender's session, and its bytes are on the line.
func lostSession(t *testing.T, off string) *consentRig {
	t.Helper()
	w := newWire()
	r := newConsentRig(t, hospital{patients: 1, grace: 3 * time.Second, wire: w, silent: true})
	s := r.patients[0]
	r.grant(s)
	r.start("", "CURA_FAILPOINT_OFF="+off)
	r.await(r.add(s, 1)[0], "delivered")

	held, release := w.hold()
	defer release()
	r.add(s, 1)
	<-held
	require.Equal(t, 1, r.count("push.ledger WHERE state = 'sent'"))
	require.Equal(t, 1, r.terminate(sendSessions))
	r.change(s, "withdraw") // the worker, which has the safeguard or not, settles it
	if off == "" {
		require.Never(t, r.effective, 300*time.Millisecond, 20*time.Millisecond)
	} else {
		require.Eventually(t, r.effective, 2*time.Second, 5*time.Millisecond)
	}
	release()
	return r
}

// effective reports whether all revocations are: the time is written anew by a transaction after the one that moved the epoch, and that
// is the one that counts.
func (r *consentRig) effective() bool {
	return r.count("cura.consent_halts h JOIN cura.consent_heads c USING (org_id, profile_id) WHERE h.effective_at IS NULL OR h.xmin = c.xmin") == 0
}
