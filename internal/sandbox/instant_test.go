package sandbox

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// R4 §3.1.1.4.6 and §3.1.1.4.7: what each prefix means for a search value that stands for a stretch of time.
func TestDateFilter(t *testing.T) {
	t.Parallel()
	now := time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)
	const (
		before = "2024-03-09T23:59:59.999Z"
		first  = "2024-03-10T00:00:00.000Z"
		noon   = "2024-03-10T12:00:00.000Z"
		last   = "2024-03-10T23:59:59.999Z"
		after  = "2024-03-11T00:00:00.000Z"
	)
	tests := []struct {
		value string
		in    []string
		out   []string
	}{
		{"2024-03-10", []string{first, noon, last}, []string{before, after}},
		{"eq2024-03-10", []string{first, noon, last}, []string{before, after}},
		{"ne2024-03-10", []string{before, after}, []string{first, noon, last}},
		{"gt2024-03-10", []string{after}, []string{before, first, noon, last}},
		{"sa2024-03-10", []string{after}, []string{before, first, noon, last}},
		{"lt2024-03-10", []string{before}, []string{first, noon, last, after}},
		{"eb2024-03-10", []string{before}, []string{first, noon, last, after}},
		{"ge2024-03-10", []string{first, noon, last, after}, []string{before}},
		{"le2024-03-10", []string{before, first, noon, last}, []string{after}},
		{"ap2024-03-10", []string{"2024-03-02T12:00:00Z", noon, "2024-03-18T12:00:00Z"}, []string{"2024-03-01T00:00:00Z", "2024-03-20T00:00:00Z"}},
		{"2024-03", []string{before, noon, after}, []string{"2024-02-29T23:59:59Z", "2024-04-01T00:00:00Z"}},
		{"2024", []string{before, after}, []string{"2023-12-31T23:59:59Z", "2025-01-01T00:00:00Z"}},
		{"2024-03-10T12:00Z", []string{noon, "2024-03-10T12:00:59.999Z"}, []string{"2024-03-10T12:01:00Z"}},
		{"2024-03-10T12:00:00Z", []string{noon, "2024-03-10T12:00:00.999Z"}, []string{"2024-03-10T12:00:01Z"}},
		{"gt2024-03-10T12:00:00Z", []string{"2024-03-10T12:00:01Z"}, []string{noon, "2024-03-10T12:00:00.999Z"}},
		{"2024-03-10T12:00:00.000Z", []string{noon}, []string{"2024-03-10T12:00:00.001Z"}},
		{"gt2024-03-10T12:00:00.000Z", []string{"2024-03-10T12:00:00.001Z"}, []string{noon}},
		{"2024-03-10T07:00:00-05:00", []string{noon}, []string{first}},
		{"2024-03-10T14:00:00 02:00", []string{noon}, []string{first}}, // a plus that was not percent-encoded
		{"2024-03-10T12:00:00", []string{noon}, []string{first}},       // without a zone: the server's, UTC
	}
	for _, tt := range tests {
		t.Run(tt.value, func(t *testing.T) {
			t.Parallel()
			f, err := parseDateFilter(tt.value)
			require.NoError(t, err)
			for _, text := range tt.in {
				at, err := time.Parse(time.RFC3339Nano, text)
				require.NoError(t, err)
				require.True(t, f.matches(at, now), "%s should match", text)
			}
			for _, text := range tt.out {
				at, err := time.Parse(time.RFC3339Nano, text)
				require.NoError(t, err)
				require.False(t, f.matches(at, now), "%s should not match", text)
			}
		})
	}
}

func TestDateFilterRefuses(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"yesterday", "xx2024", "2024-13", "2024-02-30", "2024-3-1", "ge", "12:00", "2024-03-10T25:00:00Z"} {
		_, err := parseDateFilter(value)
		require.ErrorIs(t, err, errDate, value)
	}
}
