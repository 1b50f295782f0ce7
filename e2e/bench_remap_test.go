package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// BenchmarkRemap measures what it costs to map again what has landed, beside what reading it has cost, on the whole system. It
// reports, and with CURA_BENCH_REPORT=FILE writes its section of the page of Markdown that BenchmarkPull writes.
// CURA_BENCH_FULL=1 adds a million resources.
func BenchmarkRemap(b *testing.B) {
	sizes := []int{10_000}
	if os.Getenv("CURA_BENCH_FULL") != "" {
		sizes = append(sizes, 1_000_000)
	}
	var all []remapCost
	for _, n := range sizes {
		b.Run(fmt.Sprintf("resources=%d", n), func(b *testing.B) {
			for b.Loop() {
				all = append(all, measureRemap(b, n))
			}
		})
	}
	if path := os.Getenv("CURA_BENCH_REPORT"); path != "" {
		writeRemaps(b, path, all)
	}
}

// remapCost is what mapping so many resources again has cost, in several cases.
type remapCost struct {
	resources int
	// fetch is the part of a pull that only fetches: milliseconds of CPU for 1,000 resources.
	fetch  float64
	passes []remapPass
}

// remapPass is a run: milliseconds of CPU for 1,000 resources.
type remapPass struct {
	name             string
	perSecond        float64
	worker, database float64
}

// measureRemap reads a hospital, and maps it again: as it is, with overrides that change no record, and so that each is written.
func measureRemap(b *testing.B, n int) remapCost {
	b.Helper()
	c := remapCost{fetch: fetchOnly(b, min(n, 20_000))}
	r := newRig(b, sandbox.Config{Patients: max(500, n/200), Resources: n}, "CURA_PAGE_SIZE=500")
	process, _ := r.worker("")
	m := newMeter(b, process.PID())
	r.ok("onboard", "main", "--monitor", "72h", "--interval", "1h")
	r.await(b, "SELECT count(*) = 1 FROM sync.runs WHERE kind = 'backfill'")
	began := m.now(b)
	r.await(b, "SELECT count(*) = 1 FROM sync.runs WHERE kind = 'backfill' AND finished_at IS NOT NULL")
	c.resources = r.count("sync.resources JOIN directory.orgs o USING (org_id) WHERE o.kind = 'live'")
	c.passes = append(c.passes, c.of(b, r, "pull", m.now(b).less(began)))
	r.await(b, "SELECT count(*) = 1 FROM sync.connections WHERE phase IN ('monitoring', 'live')")

	again := func(name string, args ...string) {
		began := m.now(b)
		v := r.remap(args...)
		require.Equal(b, c.resources, v.counts().Same)
		c.passes = append(c.passes, c.of(b, r, name, m.now(b).less(began)))
	}
	again("dry run", "--dry-run")
	again("again, nothing changed")
	r.ok("mapping", "set", "main", r.write("overrides.yaml", "version: 1\n"))
	again("again, another mapping version and the same records")
	for _, table := range []string{"cura.profiles", "cura.allergies", "cura.medications", "labs.observations", "cura.visits"} {
		storetest.Query[string](b, r.db, "UPDATE "+table+" SET mapping_version = '0' RETURNING ''")
	}
	again("again, every record written")
	for _, p := range c.passes {
		b.ReportMetric(p.perSecond, strings.ReplaceAll(p.name, " ", "-")+"/s")
		b.ReportMetric(p.worker+p.database, strings.ReplaceAll(p.name, " ", "-")+"-ms/1k")
	}
	return c
}

// of is the last run, with what it has cost.
func (c remapCost) of(b *testing.B, r *rig, name string, cost used) remapPass {
	b.Helper()
	seconds := storetest.Query[float64](b, r.db, `
		SELECT extract(epoch FROM finished_at - started_at)::float8 FROM sync.runs WHERE kind IN ('backfill', 'remap') ORDER BY started_at DESC LIMIT 1`)[0]
	k := 1e6 / float64(c.resources)
	return remapPass{name: name, perSecond: float64(c.resources) / seconds, worker: cost.worker * k, database: cost.database * k}
}

// fetchOnly is the CPU of reading an EHR and doing nothing with it, in milliseconds for 1,000 resources.
func fetchOnly(b *testing.B, n int) float64 {
	b.Helper()
	p := startEHR(b, n)
	secret, err := os.ReadFile(p.SecretFile)
	require.NoError(b, err)
	ca, err := os.ReadFile(p.CAFile)
	require.NoError(b, err)
	client, err := ehr.New(ehr.Config{BaseURL: p.BaseURL, ClientID: p.ClientID, Secret: string(secret[:len(secret)-1]), CAPEM: string(ca)})
	require.NoError(b, err)
	defer client.Close()
	began := ownCPU(b)
	read := readAll(b, client, func([]fhir.Entry) {})
	return (ownCPU(b) - began) * 1e6 / float64(read)
}

// writeRemaps writes the section about mapping again.
func writeRemaps(b *testing.B, path string, all []remapCost) {
	b.Helper()
	var out strings.Builder
	out.WriteString("`starter remap` validates, maps and compares what has landed, without the EHR, and writes what differs. Where only the mapping's version\n")
	out.WriteString("is another one, rows are marked with it; *every record written* is what a release costs that stores all of them otherwise.\n\n")
	out.WriteString("| resources | run | resources/s | worker ms/1k | PostgreSQL ms/1k | **together** | times a pull without the fetch |\n|--:|---|--:|--:|--:|--:|--:|\n")
	for _, c := range all {
		pull := c.passes[0].worker + c.passes[0].database - c.fetch
		for _, p := range c.passes {
			fmt.Fprintf(&out, "| %d | %s | %.0f | %.0f | %.0f | **%.0f** | %.2f |\n", c.resources, p.name, p.perSecond, p.worker, p.database,
				p.worker+p.database, (p.worker+p.database)/pull)
		}
	}
	putSection(b, path, "Mapping again", out.String())
}
