package sandbox

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cpu is what the process has used so far, user and system.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkServe reads Observations in pages of 500 over TLS and reports the CPU time for a thousand of them. The client,
// which throws away what it reads, is in it too.
func BenchmarkServe(b *testing.B) {
	for _, vendor := range append(Vendors(), "") {
		b.Run("vendor="+vendor, func(b *testing.B) {
			s, err := Start(b.Context(), Config{Patients: 20, Resources: 20_000, Vendor: vendor})
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, s.Close()) })
			client := trusting(b, s, 0)
			header := map[string]string{"Authorization": "Bearer " + s.tokens.give(grant{
				scopes: []scope{{"*", "rs"}}, expires: s.now().Add(time.Hour),
			}, s.now())}
			query := "/Observation?_sort=_lastUpdated&_count=500&category=laboratory&" + practiceParam + "=Organization/a-1.Practice-1"
			patient := ""
			if vendor != "hapi" && vendor != "medplum" && vendor != "" {
				query += "&patient=" + s.store.first("Patient")
				patient = "Patient/" + s.store.first("Patient")
			}
			walk := func() (pages int) {
				for address := s.BaseURL() + query; address != ""; pages++ {
					address = nextOf(download(b, client, address, header))
				}
				return pages
			}
			walk()
			rows := 0
			for _, h := range s.store.find(search{typ: "Observation", patient: patient}) {
				if h.version.has(tokenMatch(byCategory, "laboratory")) {
					rows++
				}
			}
			pages := 0
			b.ResetTimer()
			begun := cpu(b)
			for b.Loop() {
				pages += walk()
			}
			b.ReportMetric(float64((cpu(b)-begun).Microseconds())/float64(rows*b.N), "cpu-ms/1k")
			b.ReportMetric(float64(rows*b.N)/float64(pages), "rows/page")
		})
	}
}

// nextOf reads the next link in the head of a Bundle.
func nextOf(head string) string {
	_, after, _ := strings.Cut(head, `"relation":"next","url":"`)
	next, _, _ := strings.Cut(after, `"`)
	return next
}

// download gives the first bytes of an answer and throws the others away.
func download(b *testing.B, client *http.Client, address string, header map[string]string) string {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, address, nil)
	require.NoError(b, err)
	req.Header.Set("Accept", "application/fhir+json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := client.Do(req)
	require.NoError(b, err)
	head := make([]byte, 2048)
	n, _ := io.ReadFull(res.Body, head) // a last page may be shorter
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(b, err)
	require.NoError(b, res.Body.Close())
	require.Equal(b, http.StatusOK, res.StatusCode, "body: %.300s", head)
	return string(head[:n])
}

// BenchmarkMillion reports the memory that a million resources need at rest.
func BenchmarkMillion(b *testing.B) {
	for b.Loop() {
		s, err := newStore()
		require.NoError(b, err)
		require.NoError(b, generate(b.Context(), s, 1, 1000, 1_000_000))
		s.loaded()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB")
		runtime.KeepAlive(s)
	}
}
