package e2e

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// report is what BenchmarkPull has measured.
type report struct {
	floors []floor
	sizes  []size
	large  large
}

// write writes the report as Markdown, and keeps the sections of the other benchmarks.
func (r report) write(b *testing.B, path string) {
	b.Helper()
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	line("# What reading an EHR costs")
	line("")
	line("Written by `make bench` on %s: %s, %d processors, %s/%s. CPU is user and system time, in milliseconds for 1,000 resources", time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	line("(ms/1k). Everything runs on this one machine, the sandbox EHR too, whose own CPU isn't counted and which takes its share of the")
	line("processors; PostgreSQL runs without fsync. Figures are medians of paired runs in one process; on a busy machine, trust ratios.")
	line("")
	line("## Backfill")
	line("")
	line("The sandbox EHR over TLS, the worker as a process, a real PostgreSQL and Temporal server, pages of 500.")
	line("")
	line("| resources | resources/s | worker ms/1k | PostgreSQL ms/1k | **together** | Temporal server ms/1k | its share of all | worker's peak memory | events per 1,000 | history bytes per 1,000 | database bytes per resource |")
	line("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for _, s := range r.sizes {
		k := float64(s.resources) / 1000
		line("| %d | %.0f | %.0f | %.0f | **%.0f** | %.1f | %.1f %% | %.0f MB | %.1f | %.0f | %.0f |", s.resources, s.perSecond, s.worker, s.database,
			s.worker+s.database, s.temporal, 100*s.temporal/(s.worker+s.database+s.temporal), s.peakMB, float64(s.events)/k, float64(s.historyBytes)/k, s.bytesPerResource)
	}
	smallest, largest := r.sizes[0], r.sizes[len(r.sizes)-1]
	line("")
	line("The worker's peak memory at %d resources is %.2f times that at %d (limit 1.3).", largest.resources, largest.peakMB/smallest.peakMB, smallest.resources)
	line("Fifty resources of %d MB each on one page: %.0f MB (limit 600).", r.large.eachMB, r.large.peakMB)
	line("")
	line("## After the backfill")
	line("")
	line("`starter sync`, from typing it to its end. CPU is in milliseconds in all.")
	line("")
	line("| hospital | pass | served | stored | seconds | worker ms | PostgreSQL ms |")
	line("|--:|---|--:|--:|--:|--:|--:|")
	for _, s := range r.sizes {
		for _, p := range s.passes {
			line("| %d | %s | %d | %d | %.1f | %.0f | %.0f |", s.resources, p.name, p.served, p.stored, p.seconds, p.worker, p.database)
		}
	}
	line("")
	line("## By stage")
	line("")
	line("Parts of the pipeline run alone on one goroutine, on the same EHR as a process of its own; each validator begins empty.")
	line("")
	line("| part | ms/1k | of it PostgreSQL | times *fetch only* | resources/s |")
	line("|---|--:|--:|--:|--:|")
	for _, f := range r.floors {
		line("| %s | %.1f | %.1f | %.1f | %.0f |", f.name, f.client+f.database, f.database, (f.client+f.database)/r.floors[0].client, f.perSecond)
	}
	fetch, raw, asked, validated, mapped := r.floors[0], r.floors[1], r.floors[2], r.floors[3], r.floors[4]
	typical := r.sizes[min(1, len(r.sizes)-1)]
	line("")
	line("So, of the backfill of %d: fetch %.0f, validate %.0f, map %.0f, match and write (the worker's part, Temporal's SDK included) %.0f,",
		typical.resources, fetch.client, validated.client-fetch.client, mapped.client-validated.client, typical.worker-mapped.client)
	line("PostgreSQL %.0f, Temporal server %.0f ms/1k. The whole costs %.1f times *fetch + COPY raw*, which validates, maps, matches and audits nothing.",
		typical.database, typical.temporal, (typical.worker+typical.database)/(raw.client+raw.database))
	line("")
	line("Validation is google/fhir's jsonformat. Asked about every byte it costs %.0f ms/1k; the worker's validator remembers the forms of", asked.client-fetch.client)
	line("members that google/fhir has found valid and asks it about the others (internal/fhir/memory.go; a test compares the verdicts of the two")
	line("on thousands of mutants): %.0f ms/1k on this data. Where a hospital's resources have more free text, it is asked more often.", validated.client-fetch.client)
	old := readPage(b, path)
	for _, title := range []string{"Pushes", "Mapping again", "Matching", "Audit log"} { // which the other benchmarks write
		if begin, end := sectionOf(old, title); begin < end {
			line("")
			line("%s", strings.TrimRight(old[begin:end], "\n"))
		}
	}
	require.NoError(b, os.WriteFile(path, []byte(out.String()), 0o644))
}

// putSection writes a section of the page at path: in the place of the one with its title, or at the end.
func putSection(b *testing.B, path, title, text string) {
	b.Helper()
	page := readPage(b, path)
	begin, end := sectionOf(page, title)
	parts := []string{strings.TrimRight(page[:begin], "\n"), "## " + title + "\n\n" + strings.TrimRight(text, "\n"), strings.TrimRight(page[end:], "\n")}
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" })
	require.NoError(b, os.WriteFile(path, []byte(strings.Join(parts, "\n\n")+"\n"), 0o644))
}

// sectionOf is where a section of a page begins and ends; both the end of the page where it isn't there.
func sectionOf(page, title string) (begin, end int) {
	begin = strings.Index(page, "## "+title+"\n")
	if begin < 0 {
		return len(page), len(page)
	}
	if next := strings.Index(page[begin+1:], "\n## "); next >= 0 {
		return begin, begin + 1 + next + 1
	}
	return begin, len(page)
}

// readPage is the page at path; empty where there is none yet.
func readPage(b *testing.B, path string) string {
	b.Helper()
	page, err := os.ReadFile(path)
	if !os.IsNotExist(err) {
		require.NoError(b, err)
	}
	return string(page)
}
