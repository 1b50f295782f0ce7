package mappings

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fhir"
)

// page is a Bundle of all the inputs, a hundred entries, and how many bytes its resources have.
func page(b *testing.B) (body []byte, entries int) {
	b.Helper()
	var resources [][]byte
	for _, input := range inputs(b) {
		raw, err := os.ReadFile(input)
		require.NoError(b, err)
		if _, err := Map(raw); err == nil {
			resources = append(resources, raw)
		}
	}
	body = []byte(`{"resourceType":"Bundle","type":"searchset","entry":[`)
	const n = 100
	for i := range n {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"resource":`...)
		body = append(body, resources[i%len(resources)]...)
		body = append(body, `,"search":{"mode":"match"}}`...)
	}
	return append(body, `]}`...), n
}

// BenchmarkPage measures what a page costs apart from validation: ns/op and MB/s are of a page of a hundred resources.
func BenchmarkPage(b *testing.B) {
	body, n := page(b)
	for name, each := range map[string]func(fhir.Entry) error{
		"read and hash": func(fhir.Entry) error { return nil },
		"read, hash and map": func(e fhir.Entry) error {
			_, err := Map(e.Resource)
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				_, err := fhir.ReadBundle(bytes.NewReader(body), 0, each)
				require.NoError(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/resource")
		})
	}
}

// BenchmarkValidate measures validation, which is google/fhir's own cost for the most part.
func BenchmarkValidate(b *testing.B) {
	v, err := validator()
	require.NoError(b, err)
	body, n := page(b)
	var resources [][]byte
	_, err = fhir.ReadBundle(bytes.NewReader(body), 0, func(e fhir.Entry) error {
		resources = append(resources, e.Resource)
		return nil
	})
	require.NoError(b, err)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		for _, raw := range resources {
			require.NoError(b, v.Validate(raw))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/resource")
}
