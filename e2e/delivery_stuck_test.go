package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
	"github.com/cura-health/ehr-sync/workflows"
)

// stick has the EHR never answer writes for some patients.
func (r *deliveryRig) stick(patients ...recipient) {
	r.t.Helper()
	var ids []string
	for _, p := range patients {
		ids = append(ids, p.ehrID)
	}
	require.NoError(r.t, r.ehr.SetFaults(sandbox.Faults{Writes: sandbox.WriteFaults{StuckPatients: ids}}))
}

// arrivalsOf counts the writes for a patient that came to the EHR.
func (r *deliveryRig) arrivalsOf(p recipient) (n int) {
	for _, a := range r.ehr.Arrivals() {
		if a.Patient == p.ehrID {
			n++
		}
	}
	return n
}

func TestAStuckPatientDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string][]string{
		"many send at once":           nil,
		"one of two that send, stuck": {"CURA_SEND_SLOTS=2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newDeliveryRig(t, "generic", 5, settings...)
			r.consent()
			stuck, others := r.patients[0], r.patients[1:]
			r.stick(stuck)
			waiting := r.add(stuck, uniqueNote(), uniqueNote(), uniqueNote())
			var items []string
			r.worker("")
			require.Eventually(t, func() bool { return r.arrivalsOf(stuck) > 0 }, time.Minute, 10*time.Millisecond, "it is tried")
			for range 4 {
				for _, p := range others {
					items = append(items, r.add(p, uniqueNote())...)
				}
			}
			for _, item := range items {
				r.awaitState(item, 30*time.Second, cura.ItemDelivered)
			}
			for i, item := range waiting {
				state, _ := r.state(item)
				require.Contains(t, []string{"queued", "sending"}, state, "item %d waits still", i)
			}
			require.Len(t, r.filed(), len(items))

			r.stick()
			r.awaitIdle(time.Minute)
			require.Equal(t, map[string]int{"delivered/confirmed": len(items) + len(waiting)}, r.requireOnce())
		})
	}
}

func TestAWriteThatIsNeverAnsweredComesToAPerson(t *testing.T) {
	t.Parallel()
	r := newDeliveryRig(t, "generic", 3, "CURA_RETRY_ATTEMPTS=2", "CURA_SEND_GRACE=1s")
	r.consent()
	stuck := r.patients[0]
	r.stick(stuck)
	items := r.add(stuck, uniqueNote(), uniqueNote())
	r.worker("")
	for _, item := range items {
		r.awaitState(item, time.Minute, cura.ItemReview)
		_, why := r.state(item)
		require.Contains(t, why, "starter push resolve")
	}
	require.Equal(t, map[string]int{"review/unknown": 2}, r.requireOnce())
	require.Len(t, storetest.Query[bool](t, r.db, "SELECT true FROM directory.connections WHERE attention AND connection_id = $1::uuid", string(r.conn)), 1,
		"a person is told")

	r.stick()
	r.ok("push", "resolve", items[0], "--release")
	r.awaitState(items[0], time.Minute, cura.ItemDelivered)
	require.Len(t, r.filed(), 1)
}

func TestAQueueThatIsHaltedGoesOnWhenItIsLifted(t *testing.T) {
	t.Parallel()
	r := newDeliveryRig(t, "generic", 3)
	r.consent()
	r.ok("halt", "--connection", "main", "pushes")
	item := r.add(r.patients[0], uniqueNote())[0]
	r.worker("")
	// The workflow waits in a timer by now, which the lifting of the halt ends.
	require.Eventually(t, func() bool {
		for id, h := range r.histories() {
			if strings.HasPrefix(id, workflows.DeliveryID(r.conn, r.patients[0].link)) {
				return slices.ContainsFunc(h.GetEvents(), func(e *history.HistoryEvent) bool { return e.GetEventType() == enumspb.EVENT_TYPE_TIMER_STARTED })
			}
		}
		return false
	}, time.Minute, 100*time.Millisecond)
	state, _ := r.state(item)
	require.Equal(t, "queued", state)
	require.Empty(t, r.filed())
	r.ok("unhalt", "--connection", "main", "pushes")
	r.awaitState(item, time.Minute, cura.ItemDelivered)
	require.Equal(t, map[string]int{"delivered/confirmed": 1}, r.requireOnce())
	r.saveHistories("-halted-and-woken")
}
