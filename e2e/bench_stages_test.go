package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fhir"
	"github.com/cura-health/ehr-sync/internal/stack"
	"github.com/cura-health/ehr-sync/mappings"
)

// floor is a part of the pipeline, run alone: milliseconds of CPU for 1,000 resources in this process and in PostgreSQL.
type floor struct {
	name             string
	client, database float64
	perSecond        float64
}

// ehrProcess is the sandbox EHR as a process of its own, so that its CPU is not counted with its client's.
type ehrProcess struct {
	BaseURL    string `json:"base_url"`
	CAFile     string `json:"ca_file"`
	ClientID   string `json:"client_id"`
	SecretFile string `json:"secret_file"`
}

func startEHR(b *testing.B, resources int) ehrProcess {
	b.Helper()
	addresses := make([]string, 2)
	for i := range addresses {
		port, err := stack.FreePort(0)
		require.NoError(b, err)
		addresses[i] = "127.0.0.1:" + strconv.Itoa(port)
	}
	cmd := exec.CommandContext(b.Context(), filepath.Join(programs, "starter"), "sandbox", "--output", "json", "--state", b.TempDir(),
		"--addr", addresses[0], "--control-addr", addresses[1], "--patients", "500", "--resources", strconv.Itoa(resources))
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	var p ehrProcess
	require.NoError(b, json.NewDecoder(out).Decode(&p))
	return p
}

// measureFloors reads the same EHR in growing parts of what a worker does, the parts one after the other in each round.
func measureFloors(b *testing.B, resources, rounds int) []floor {
	b.Helper()
	p := startEHR(b, resources)
	secret, err := os.ReadFile(p.SecretFile)
	require.NoError(b, err)
	ca, err := os.ReadFile(p.CAFile)
	require.NoError(b, err)
	client, err := ehr.New(ehr.Config{BaseURL: p.BaseURL, ClientID: p.ClientID, Secret: string(secret[:len(secret)-1]), CAPEM: string(ca)})
	require.NoError(b, err)
	b.Cleanup(client.Close)
	raw, err := pgx.Connect(b.Context(), cluster.New(b).SuperuserURL)
	require.NoError(b, err)
	b.Cleanup(func() { _ = raw.Close(b.Context()) })
	_, err = raw.Exec(b.Context(), "CREATE TABLE public.raw (ehr_id text, raw bytea)")
	require.NoError(b, err)

	validate := func(b *testing.B, begin func() (*fhir.Validator, error), then func(fhir.Entry)) func([]fhir.Entry) {
		b.Helper()
		v, err := begin()
		require.NoError(b, err)
		return func(page []fhir.Entry) {
			for _, e := range page {
				require.NoError(b, v.Validate(e.Resource))
				then(e)
			}
		}
	}
	stages := []struct {
		name string
		page func() func([]fhir.Entry)
	}{
		{"fetch only", func() func([]fhir.Entry) { return func([]fhir.Entry) {} }},
		{"fetch + COPY raw as table owner", func() func([]fhir.Entry) {
			return func(page []fhir.Entry) {
				_, err := raw.CopyFrom(b.Context(), pgx.Identifier{"public", "raw"}, []string{"ehr_id", "raw"},
					pgx.CopyFromSlice(len(page), func(i int) ([]any, error) { return []any{page[i].ID, page[i].Resource}, nil }))
				require.NoError(b, err)
			}
		}},
		{"fetch + validate, google/fhir asked about every byte", func() func([]fhir.Entry) {
			return validate(b, fhir.NewForgetfulValidator, func(fhir.Entry) {})
		}},
		{"fetch + validate", func() func([]fhir.Entry) { return validate(b, fhir.NewValidator, func(fhir.Entry) {}) }},
		{"fetch + validate + map", func() func([]fhir.Entry) {
			return validate(b, fhir.NewValidator, func(e fhir.Entry) {
				_, err := mappings.Map(e.Resource)
				require.NoError(b, err)
			})
		}},
	}
	m := newMeter(b, os.Getpid())
	runs := make([][]floor, len(stages))
	for range rounds {
		for i, stage := range stages {
			page := stage.page()
			began, own, at := m.now(b), ownCPU(b), time.Now()
			n := readAll(b, client, page)
			require.GreaterOrEqual(b, n, resources-100)
			k := 1e6 / float64(n)
			runs[i] = append(runs[i], floor{
				client: (ownCPU(b) - own) * k, database: m.now(b).less(began).database * k, perSecond: float64(n) / time.Since(at).Seconds(),
			})
		}
	}
	floors := make([]floor, len(stages))
	for i, stage := range stages {
		floors[i] = floor{
			name:      stage.name,
			client:    median(runs[i], func(f floor) float64 { return f.client }),
			database:  median(runs[i], func(f floor) float64 { return f.database }),
			perSecond: median(runs[i], func(f floor) float64 { return f.perSecond }),
		}
		b.ReportMetric(floors[i].client+floors[i].database, fmt.Sprintf("floor%d-cpu-ms/1k", i))
	}
	return floors
}

// readAll gives every page of every type to page, and counts the resources.
func readAll(b *testing.B, client *ehr.Client, page func([]fhir.Entry)) (n int) {
	b.Helper()
	for _, t := range cura.ResourceTypes() {
		query := ehr.Query{Type: t}
		for {
			got, err := client.Search(b.Context(), query)
			require.NoError(b, err)
			page(got.Entries)
			n += len(got.Entries)
			if got.Next == "" {
				break
			}
			query.Next = got.Next
		}
	}
	return n
}
