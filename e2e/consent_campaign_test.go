package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// TestNothingArrivesAfterARevocation has patients' consents withdrawn and granted again at random moments while notes are
// queued for them, and meanwhile loses notifications and sessions, kills and freezes workers and revokers, and slows the EHR
// down. Then the judge compares what arrived with the consent tables. CURA_SEED repeats the dice of a run, though not the
// interleaving.
func TestNothingArrivesAfterARevocation(t *testing.T) {
	t.Parallel()
	changes := int64(120)
	if os.Getenv("CURA_SOAK") != "" {
		changes = 2000
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CURA_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	for _, silent := range []bool{true, false} {
		name := "the hospital is told"
		if silent {
			name = "the hospital isn't told"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Logf("CURA_SEED=%d", seed)
			c := &campaign{consentRig: newConsentRig(t, hospital{patients: 8, grace: time.Second, silent: silent}), changes: changes}
			c.run(seed)
			v := c.judge()
			t.Logf("%d items, %d of them cancelled: %+v", c.count("push.outbox"), c.count("push.outbox WHERE state = 'cancelled'"), v)
			require.GreaterOrEqual(t, v.Changes, int(changes)*9/10, "but for those whose session was terminated before they were committed")
			require.Zero(t, v.AfterRevocation, "%+v", v)
			require.Zero(t, v.WithoutConsent, "%+v", v)
			require.Zero(t, v.Duplicates, "%+v", v)
			require.Positive(t, v.Disclosures, "something was sent at all")
			require.Positive(t, c.count("push.outbox WHERE state = 'cancelled'"), "something was halted at all")
		})
	}
}

// run runs the campaign until everything has come to an end.
func (c *campaign) run(seed uint64) {
	c.t.Helper()
	c.workers = []*program{c.start(""), c.start("")}
	done := make(chan struct{})
	var patients, trouble sync.WaitGroup
	for n, s := range c.patients {
		patients.Go(func() { c.live(s, rand.New(rand.NewPCG(seed, uint64(n)))) })
	}
	trouble.Go(func() { c.disturb(rand.New(rand.NewPCG(seed, 1000)), done) })
	patients.Wait()
	close(done)
	trouble.Wait()
	c.faults(`{"writes":{"latency_ms":0,"latency_before_ms":0}}`)
	c.requireSettled(90 * time.Second)
}

// campaign is a hospital in trouble.
type campaign struct {
	*consentRig

	changes int64
	made    atomic.Int64
	workers []*program
}

// chance is true in one of n cases.
func chance(dice *rand.Rand, n int) bool { return dice.IntN(n) == 0 }

// wait waits for a random while, 50 µs at least.
func wait(dice *rand.Rand, most time.Duration) {
	<-time.After(50*time.Microsecond + time.Duration(dice.Int64N(int64(most))))
}

// live is what happens to one patient: notes, and consent that comes and goes.
func (c *campaign) live(s *subject, dice *rand.Rand) {
	for c.made.Load() < c.changes {
		_, _ = c.tryAdd(s, 1+dice.IntN(4)) // a session may be terminated: then nothing is committed
		c.recall(s)
		switch {
		case s.permits() && chance(dice, 3):
			wait(dice, 500*time.Millisecond)
		case s.permits():
			c.awaitSend(s)
			wait(dice, 50*time.Millisecond)
		default:
			wait(dice, 100*time.Millisecond)
		}
		change := "grant"
		switch {
		case s.permits() && chance(dice, 3):
			change = "deny"
		case s.permits() || s.denied != "":
			change = "withdraw"
		}
		if chance(dice, 12) {
			// An officer's process that dies on the way: somebody else must finish what it has begun.
			places := revokerPlaces()
			revoker := c.revoker(s, change, places[dice.IntN(len(places))]+":1", "CURA_FAILPOINT_SIGNAL=KILL")
			<-revoker.Done()
			c.made.Add(1)
			continue
		}
		if c.tryChange(s, change) != nil {
			continue
		}
		c.made.Add(1)
		if chance(dice, 4) {
			continue // nobody waits for it; a sweep settles it
		}
		wait(dice, 30*time.Millisecond)
		_, _ = c.db.SettleConsent(c.t.Context(), c.org, s.profile, gate.Permits) // as above: a sweep does it then
	}
}

// awaitSend waits until a note of the patient is on its way, so that a change meets it there, or for a while.
func (c *campaign) awaitSend(s *subject) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 4*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.db.SuperuserURL)
	require.NoError(c.t, err)
	defer conn.Close(c.t.Context())
	const sending = `
		SELECT EXISTS (SELECT FROM push.ledger d JOIN push.outbox o USING (org_id, item_id)
			WHERE d.profile_id = $1::uuid AND d.state = 'sent' AND d.send_deadline > clock_timestamp() AND o.exempt = '')`
	for yes := false; !yes && ctx.Err() == nil; {
		if err := conn.QueryRow(ctx, sending, string(s.profile)).Scan(&yes); ctx.Err() == nil {
			require.NoError(c.t, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// recall reads which of the patient's consents stand: a change that broke off may have been committed all the same.
func (c *campaign) recall(s *subject) {
	s.granted, s.denied = "", ""
	standing := storetest.Query[string](c.t, c.db, `
		SELECT root_type || ' ' || consent_id FROM (
			SELECT DISTINCT ON (consent_id) consent_id, root_type, status FROM cura.consent_log WHERE profile_id = $1::uuid ORDER BY consent_id, entry_id DESC
		) AS last WHERE status = 'active'`, string(s.profile))
	for _, text := range standing {
		if root, id, _ := strings.Cut(text, " "); root == "deny" {
			s.denied = id
		} else {
			s.granted = id
		}
	}
}

// disturb makes trouble until done.
func (c *campaign) disturb(dice *rand.Rand, done <-chan struct{}) {
	for kills := 0; ; {
		select {
		case <-done:
			return
		case <-time.After(50*time.Millisecond + time.Duration(dice.Int64N(int64(250*time.Millisecond)))):
		}
		n := dice.IntN(len(c.workers))
		switch dice.IntN(20) {
		case 0, 1, 2, 3:
			c.terminate(listeners)
		case 4, 5, 6, 7:
			c.terminate(sendSessions)
		case 8:
			c.terminate("pid <> pg_backend_pid()")
		case 9, 10, 11, 12:
			c.faults(fmt.Sprintf(`{"writes":{"latency_before_ms":%d,"latency_ms":%d}}`, dice.IntN(100), dice.IntN(50)))
		case 13, 14, 15: // for less than the deadline, and for more
			c.workers[n].signal(syscall.SIGSTOP)
			wait(dice, 1500*time.Millisecond)
			c.workers[n].signal(syscall.SIGCONT)
		case 16:
			// What a worker has left is found after its heartbeat's timeout: kills are rare, or nothing else would happen.
			if kills++; kills%4 == 1 {
				require.NoError(c.t, c.workers[n].Kill())
				c.workers[n] = c.start("")
			}
		default:
		}
	}
}
