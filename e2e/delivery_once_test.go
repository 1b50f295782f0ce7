package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// TestEveryArtefactIsWrittenOnce pushes notes while a fifth of all writes goes wrong, in all the ways in which a write can,
// and workers are killed in the middle of theirs; with a server that creates on condition, and with one that has nothing
// but a search. What the EHR has is the judge.
func TestEveryArtefactIsWrittenOnce(t *testing.T) {
	t.Parallel()
	items, patients, within := 150, 30, 2*time.Minute
	// Both workers are in the middle of sending when they die: one has written and doesn't know, the other hasn't.
	kills := []string{"push/answered:8", "push/sent-marked:12"}
	if os.Getenv("CURA_SOAK") != "" {
		items, patients, within = 10_000, 100, 90*time.Minute
		kills = append(kills, "push/intent-written:200", "push/prepared:200", "push/halt-asked:200", "push/head-locked:200", "push/head-held:200",
			"push/answered:200", "push/settlement-written:200", "push/settled:200")
	}
	for _, vendor := range []string{"generic", "oracle"} {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			r := newDeliveryRig(t, vendor, patients)
			r.consent()
			require.NoError(t, r.ehr.SetFaults(sandbox.Faults{Writes: sandbox.WriteFaults{
				TimeoutAfterShare: 0.03, ResetAfterShare: 0.04, ResetBeforeShare: 0.04, ErrorAfterShare: 0.04, ErrorBeforeShare: 0.03, ThrottleShare: 0.02,
			}}))
			for _, p := range r.patients {
				notes := make([]cura.Artefact, items/patients)
				for i := range notes {
					notes[i] = uniqueNote()
				}
				r.add(p, notes...)
			}
			r.killEach(kills)
			r.awaitIdle(within)
			counts := r.requireOnce()
			t.Logf("%v", counts)
			r.saveHistories("-faults-" + vendor)
			if vendor == "generic" {
				require.Equal(t, items, counts["delivered/confirmed"]+counts["delivered/already-present"], "who can ask again needs nobody's decision: %v", counts)
				return
			}
			require.Positive(t, counts["delivered/confirmed"])
			require.Positive(t, counts["review/unknown"], "what isn't found may still come, and a person decides")
			r.requireReviewsHoldNothingElse()
		})
	}
}

// killEach starts two workers, each of which kills itself at a place, and a new one for each that has died, until no place
// is left; then a worker that stays.
func (r *deliveryRig) killEach(places []string) {
	r.t.Helper()
	for len(places) > 0 {
		batch := places[:min(2, len(places))]
		places = places[len(batch):]
		var files []string
		var ended []<-chan struct{}
		for _, place := range batch {
			process, reached := r.worker(place)
			files, ended = append(files, reached), append(ended, process.Done())
		}
		for i := range batch {
			select {
			case <-ended[i]:
			case <-time.After(2 * time.Minute):
				require.Fail(r.t, "the place was never reached", batch[i])
			}
			require.FileExists(r.t, files[i], "it was the failpoint that killed the worker")
		}
	}
	r.worker("")
}

// requireReviewsHoldNothingElse requires that behind an item that waits for a person others of its queue have been delivered.
func (r *deliveryRig) requireReviewsHoldNothingElse() {
	r.t.Helper()
	held, passed := map[string]bool{}, 0
	for _, s := range r.settlements() {
		if s.state == "review" {
			held[s.link] = true
		} else if held[s.link] {
			passed++
		}
	}
	require.Positive(r.t, passed)
}
