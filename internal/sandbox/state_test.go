package sandbox

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// run starts a sandbox that the test closes itself.
func run(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Insecure = true
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	return s
}

func changesFile(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "changes.ndjson"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	return files[0]
}

func TestChangesSurviveARestart(t *testing.T) {
	t.Parallel()
	clock := newClock()
	cfg := Config{StateDir: t.TempDir(), DataDir: folder(t, map[string]string{"a": patientA + patientB}), Now: clock.now}
	s := run(t, cfg)
	secret, ca := s.ClientSecret(), string(s.CAPEM())
	require.NoError(t, s.Put([]byte("{\n \"resourceType\": \"Patient\", \"id\": \"p1\", \"x\": 1.50, \"y\": \"<&>\" }")))
	require.NoError(t, s.Put([]byte(`{"resourceType":"Patient","id":"p1","x":2.50}`)))
	require.NoError(t, s.Put([]byte(`{"resourceType":"Patient","id":"p3"}`)))
	require.NoError(t, s.Delete("Patient", "p2"))
	before := [][]byte{fetch(t, s, "/Patient/p1/_history").raw, fetch(t, s, "/Patient/p2/_history").raw, fetch(t, s, "/Patient").raw}
	base := s.BaseURL()
	require.NoError(t, s.Close())

	s = run(t, cfg)
	require.Equal(t, secret, s.ClientSecret())
	require.Equal(t, ca, string(s.CAPEM()))
	after := [][]byte{fetch(t, s, "/Patient/p1/_history").raw, fetch(t, s, "/Patient/p2/_history").raw, fetch(t, s, "/Patient").raw}
	for i := range before {
		require.Equal(t, withoutBase(before[i], base), withoutBase(after[i], s.BaseURL()))
	}
	require.Equal(t, http.StatusGone, fetch(t, s, "/Patient/p2").status)

	// The next write comes after all of them, on a clock that stood still.
	require.NoError(t, s.Put([]byte(`{"resourceType":"Patient","id":"p1"}`)))
	r := fetch(t, s, "/Patient/p1")
	require.Equal(t, "6", r.get(t, "meta", "versionId"))
	require.Equal(t, "2026-03-01T12:00:00.004Z", r.get(t, "meta", "lastUpdated"))
	require.NoError(t, s.Close())
}

func withoutBase(raw []byte, base string) string { return strings.ReplaceAll(string(raw), base, "") }

func TestTornLastLine(t *testing.T) {
	t.Parallel()
	cfg := Config{StateDir: t.TempDir(), DataDir: folder(t, map[string]string{"a": patientA})}
	s := run(t, cfg)
	require.NoError(t, s.Put([]byte(`{"resourceType":"Patient","id":"kept"}`)))
	require.NoError(t, s.Close())
	file, err := os.OpenFile(changesFile(t, cfg.StateDir), os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = file.WriteString(`{"put":{"resourceType":"Patient","id":"to`)
	require.NoError(t, err)
	require.NoError(t, file.Close())

	s = run(t, cfg)
	require.Equal(t, 2, s.Counts()["Patient"])
	require.NoError(t, s.Put([]byte(`{"resourceType":"Patient","id":"next"}`)))
	require.NoError(t, s.Close())
	s = run(t, cfg)
	require.Equal(t, 3, s.Counts()["Patient"], "what is written after the torn line is not glued to it")
	require.NoError(t, s.Close())

	require.NoError(t, os.WriteFile(changesFile(t, cfg.StateDir), []byte("{torn\n{}\n"), 0o600))
	_, err = Start(t.Context(), cfg)
	require.ErrorContains(t, err, "changes.ndjson")
	require.ErrorContains(t, err, "line 1")
}

func TestChangesBelongToTheirData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := run(t, Config{StateDir: dir, Seed: 1, Patients: 2})
	require.NoError(t, s.Put([]byte(`{"resourceType":"Patient","id":"extra"}`)))
	require.NoError(t, s.Close())
	for _, cfg := range []Config{{Seed: 2, Patients: 2}, {Seed: 1, Patients: 2, DataDir: folder(t, map[string]string{"a": patientA + patientB})}} {
		cfg.StateDir = dir
		s = run(t, cfg)
		require.Equal(t, 2, s.Counts()["Patient"])
		require.NoError(t, s.Close())
	}
	s = run(t, Config{StateDir: dir, Seed: 1, Patients: 2})
	require.Equal(t, 3, s.Counts()["Patient"])
	require.NoError(t, s.Close())
}

func TestStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx, Config{Insecure: true, Patients: 1})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, send(t, plain(), http.MethodGet, s.BaseURL()+"/metadata", nil, nil).status)
	cancel()
	require.NoError(t, s.Close()) // waits for the stop that the context began, and may be called again
	require.NoError(t, s.Close())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.BaseURL()+"/metadata", nil)
	require.NoError(t, err)
	res, err := (&http.Client{Timeout: time.Second}).Do(req)
	if res != nil {
		require.NoError(t, res.Body.Close())
	}
	require.Error(t, err)
}

func TestAddressTaken(t *testing.T) {
	t.Parallel()
	s := hospital(t)
	_, err := Start(t.Context(), Config{Insecure: true, Patients: 1, Addr: s.addr})
	require.ErrorContains(t, err, "listening for the sandbox EHR")
	_, err = Start(t.Context(), Config{Insecure: true, Patients: 1, ControlAddr: s.controlAddr})
	require.ErrorContains(t, err, "control endpoint")
}

// A vendor that shows no versions keeps them all the same, and its long ids stay.
func TestChangesOfAVendorSurviveARestart(t *testing.T) {
	t.Parallel()
	cfg := Config{Vendor: "epic", StateDir: t.TempDir(), Patients: 3}
	s := run(t, cfg)
	_, err := s.Rehearse(t.Context())
	require.NoError(t, err)
	before := source(t, s)
	require.NoError(t, s.Close())
	s = run(t, cfg)
	require.Equal(t, before, source(t, s))
	id := s.store.first("Patient")
	require.Len(t, s.store.versionsOf("Patient", id), 2, "the phone was changed")
	require.NoError(t, s.Put(before["Patient"][id]))
	require.Equal(t, "3", s.store.versionsOf("Patient", id)[2].id)
	require.NoError(t, s.Close())
}

// Searches, pages and the source go on while resources change.
func TestReadsWhileWritten(t *testing.T) {
	t.Parallel()
	for _, vendor := range []string{"medplum", "hapi"} {
		t.Run(vendor, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			s := start(t, Config{Vendor: vendor, Patients: 5, Now: clock.now, Faults: Faults{LateCommitSeconds: 1, LateCommitShare: 0.5}})
			c := clientOf(t, s)
			raw := source(t, s)["Observation"]
			done := make(chan error, 1)
			go func() {
				var errs []error
				for id, one := range raw {
					errs = append(errs, s.Put(one))
					if hashOf("deleted", id)%4 == 0 {
						errs = append(errs, s.Delete("Observation", id))
					}
				}
				done <- errors.Join(errs...)
			}()
			for range 5 {
				c.walk("/Observation?_count=7")
				source(t, s)
			}
			require.NoError(t, <-done)
			clock.advance(time.Second)
			require.Len(t, source(t, s)["Observation"], s.Counts()["Observation"])
		})
	}
}
