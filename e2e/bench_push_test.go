package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
)

// BenchmarkPush measures what writing to an EHR costs, on the whole system: gate, ledger, lock, write, settlement and audit
// of each item, and a workflow for each patient. It reports, and with CURA_BENCH_REPORT=FILE writes its section of the page of
// Markdown that BenchmarkPull writes.
func BenchmarkPush(b *testing.B) {
	var all []pushed
	b.Run("patients=1000", func(b *testing.B) {
		for b.Loop() {
			r := newDeliveryRig(b, "generic", 1000, "CURA_SEND_GRACE=5s")
			r.consent()
			process, _ := r.worker("")
			m := newMeter(b, process.PID())
			r.awaitIdle(10 * time.Minute) // the events that tell of the consents
			all = []pushed{
				r.push(b, m, r.patients, 1),
				r.push(b, m, r.patients[:50], 20),
			}
			b.ReportMetric(all[0].perSecond, "items/s")
			b.ReportMetric(all[0].cost.worker+all[0].cost.database, "cpu-ms/item")
		}
	})
	if path := os.Getenv("CURA_BENCH_REPORT"); path != "" {
		writePushes(b, path, all)
	}
}

// pushed is what pushing so many notes to each of so many patients has cost.
type pushed struct {
	patients, each int
	perSecond      float64
	// cost is in milliseconds of CPU for each item.
	cost used
}

// push queues notes for patients, in one transaction, and waits until the EHR has them all.
func (r *deliveryRig) push(b *testing.B, m *meter, patients []recipient, each int) pushed {
	b.Helper()
	ctx, before := b.Context(), len(r.filed())
	began, at := m.now(b), time.Now()
	require.NoError(b, r.db.InOrg(ctx, r.org, func(tx *store.Tx) error {
		for range each {
			for _, p := range patients {
				if _, err := tx.AddItem(ctx, r.conn, p.link, uniqueNote(), store.NotExempt, "bench"); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	r.await(b, "SELECT NOT EXISTS (SELECT FROM push.outbox WHERE state IN ('queued', 'sending'))")
	took, cost := time.Since(at), m.now(b).less(began)
	n := len(patients) * each
	require.Len(b, r.filed(), before+n, "the EHR has them")
	require.Equal(b, before+n, r.count("push.outbox WHERE kind = $1 AND state = 'delivered'", cura.Note))
	k := 1000 / float64(n)
	return pushed{
		patients: len(patients), each: each, perSecond: float64(n) / took.Seconds(),
		cost: used{worker: cost.worker * k, database: cost.database * k, temporal: cost.temporal * k},
	}
}

// writePushes writes the section about pushes.
func writePushes(b *testing.B, path string, all []pushed) {
	b.Helper()
	var out strings.Builder
	out.WriteString("Notes to a server with conditional create, over TLS: role, consent and ledger are looked at and audited for each, and each patient's\n")
	out.WriteString("queue is a workflow. CPU is in milliseconds for each note, from the commit that queues them all to the last settlement.\n\n")
	out.WriteString("| patients | notes each | notes/s | worker ms | PostgreSQL ms | **together** | Temporal server ms |\n|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, p := range all {
		fmt.Fprintf(&out, "| %d | %d | %.0f | %.1f | %.1f | **%.1f** | %.1f |\n", p.patients, p.each, p.perSecond,
			p.cost.worker, p.cost.database, p.cost.worker+p.cost.database, p.cost.temporal)
	}
	putSection(b, path, "Pushes", out.String())
}
