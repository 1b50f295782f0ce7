package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/stack"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// blow is what happens to a process at a named place.
type blow string

const (
	// killed: SIGKILL.
	killed blow = "killed"
	// frozen: SIGSTOP until the revocation is effective and every deadline has passed, then SIGCONT.
	frozen blow = "frozen"
	// replaced: frozen until another worker has taken its work over.
	replaced blow = "replaced"
	// cutOff: its database sessions are terminated while it stands still.
	cutOff blow = "cut off"
	// restarted: PostgreSQL is restarted while it stands still.
	restarted blow = "restarted"
)

// senderPlaces are where a sender can be struck, revokerPlaces where a revoker can (internal/failpoint).
func senderPlaces() []string {
	return []string{
		"push/intent-written", "push/prepared", "push/sent-marked", "push/halt-asked", "push/head-locked", "push/head-held", "push/answered",
		"push/settlement-written", "push/settled",
	}
}

func revokerPlaces() []string {
	return []string{"consent/halted", "consent/head-locked", "consent/waited", "consent/epoch-moved"}
}

// TestStruckAnywhereNothingLeavesAfterARevocation strikes a sender or a revoker at a named place, revokes, and has the judge
// compare what arrived at the EHR with the consent tables.
func TestStruckAnywhereNothingLeavesAfterARevocation(t *testing.T) {
	t.Parallel()
	type strike struct {
		place string
		how   blow
	}
	strikes := []strike{{"push/head-held", frozen}, {"push/sent-marked", killed}, {"push/answered", cutOff}, {"consent/waited", frozen}}
	if os.Getenv("CURA_SOAK") != "" {
		strikes = nil
		for _, how := range []blow{killed, frozen, replaced, cutOff, restarted} {
			for _, place := range senderPlaces() {
				strikes = append(strikes, strike{place, how})
			}
			for _, place := range revokerPlaces() {
				if how != replaced {
					strikes = append(strikes, strike{place, how})
				}
			}
		}
	}
	sender := map[string]bool{}
	for _, place := range senderPlaces() {
		sender[place] = true
	}
	for _, s := range strikes {
		t.Run(fmt.Sprintf("%s/%s", s.place, s.how), func(t *testing.T) {
			t.Parallel()
			h := hospital{patients: 1, grace: time.Second, silent: true}
			restart := func() {}
			if s.how == restarted {
				h.db, restart = ownCluster(t)
			}
			r := newConsentRig(t, h)
			r.faults(`{"writes":{"latency_ms":200}}`)
			if sender[s.place] {
				r.strikeSender(s.place, s.how, restart)
			} else {
				r.strikeRevoker(s.place, s.how, restart)
			}
			r.requireSettled(90 * time.Second)
			r.requireObeyed()
		})
	}
}

// ownCluster gives a database in a cluster that no other test uses, and a way to restart it.
func ownCluster(t *testing.T) (db *storetest.DB, restart func()) {
	t.Helper()
	// The server may run as another user, who must get there: t.TempDir is closed to others.
	dir := filepath.Join(filepath.Dir(programs), "cluster-"+uuid.NewString())
	own, err := storetest.Start(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, own.Stop())
		require.NoError(t, stack.RemovePostgres(t.Context(), dir))
	})
	return own.New(t), func() { require.NoError(t, own.Restart(t.Context())) }
}

// signalOf is what the failpoint does.
func signalOf(how blow) string {
	if how == killed {
		return "CURA_FAILPOINT_SIGNAL=KILL"
	}
	return "CURA_FAILPOINT_SIGNAL=STOP"
}

// strikeSender strikes a worker that sends, revokes meanwhile, and has the worker go on, or another.
func (r *consentRig) strikeSender(place string, how blow, restart func()) {
	r.t.Helper()
	s := r.patients[0]
	r.grant(s)
	worker := r.start(place+":1", signalOf(how))
	r.add(s, 3)
	worker.waitAt(place)
	switch how {
	case cutOff:
		r.terminate("pid <> pg_backend_pid()")
	case restarted:
		restart()
	case killed, frozen, replaced:
	}
	require.Eventually(r.t, func() bool { return r.tryChange(s, "withdraw") == nil }, 10*time.Second, 10*time.Millisecond)
	switch how {
	case killed, replaced:
		r.start("")
	case cutOff, restarted:
		worker.signal(syscall.SIGCONT) // at once, for it may still have time to send
	case frozen:
	}
	r.settle(s)
	if how == replaced {
		// The other one can't tell whether the first has sent: it waits for the deadline, looks, and decides anew.
		r.requireSettled(90 * time.Second)
	}
	if how == frozen || how == replaced {
		require.Eventually(r.t, func() bool { return r.count("push.ledger WHERE send_deadline > clock_timestamp()") == 0 }, 10*time.Second, 10*time.Millisecond)
		worker.signal(syscall.SIGCONT)
	}
}

// strikeRevoker strikes a revoker while a send is under way.
func (r *consentRig) strikeRevoker(place string, how blow, restart func()) {
	r.t.Helper()
	s := r.patients[0]
	r.grant(s)
	r.start("")
	r.add(s, 10)
	require.Eventually(r.t, func() bool { return r.count("push.ledger WHERE state = 'sent'") > 0 }, 20*time.Second, 2*time.Millisecond)
	// The worker would settle what the revoker begins: it doesn't hear of it for a second.
	r.terminate(listeners)
	revoker := r.revoker(s, "withdraw", place+":1", signalOf(how))
	revoker.waitAt(place)
	switch how {
	case cutOff:
		r.terminate("pid <> pg_backend_pid()")
	case restarted:
		restart()
	case killed, frozen, replaced:
	}
	require.Eventually(r.t, func() bool {
		return r.count("cura.consent_halts WHERE effective_at IS NULL") == 0
	}, 30*time.Second, 10*time.Millisecond, "another settles what the revoker can't")
	revoker.signal(syscall.SIGCONT)
	<-revoker.Done() // with an error, where its sessions are gone
}
