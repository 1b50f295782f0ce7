package cura_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// TestEachThresholdAlone crosses one threshold at a time, and stands at it beside.
func TestEachThresholdAlone(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	now := began.Add(time.Hour)
	ok := func(minutes int) cura.SyncFact {
		return cura.SyncFact{EndedAt: began.Add(time.Duration(minutes) * time.Minute), Complete: true}
	}
	failed := func(minutes int) cura.SyncFact {
		f := ok(minutes)
		f.Complete = false
		return f
	}
	brought := func(landed, quarantined int) cura.SyncFact {
		f := ok(59)
		f.Landed, f.Quarantined = landed, quarantined
		return f
	}
	refused := func(minutes int) cura.SyncFact {
		f := ok(minutes)
		f.AuthFailed = true
		return f
	}
	thresholds := cura.Thresholds{}.WithDefaults(15 * time.Minute)
	for name, c := range map[string]struct {
		syncs  []cura.SyncFact
		breach string
	}{
		"all is well":                        {[]cura.SyncFact{ok(15), ok(30), ok(45), ok(59)}, ""},
		"two failed in a row":                {[]cura.SyncFact{ok(15), failed(30), failed(45)}, ""},
		"three failed in a row":              {[]cura.SyncFact{ok(15), failed(20), failed(30), failed(45)}, "3 syncs in a row"},
		"three failed, and one came between": {[]cura.SyncFact{failed(20), failed(30), ok(40), failed(45)}, ""},
		"five per cent quarantined":          {[]cura.SyncFact{brought(100, 5)}, ""},
		"six per cent quarantined":           {[]cura.SyncFact{brought(100, 6)}, "6 of 100 new versions were quarantined"},
		"too few to judge by":                {[]cura.SyncFact{brought(99, 99)}, ""},
		"one refused credential":             {[]cura.SyncFact{ok(15), refused(30), ok(59)}, "refused the credentials in 1 syncs"},
		"an hour since the last complete":    {[]cura.SyncFact{ok(0)}, ""},
		"more than an hour since":            {[]cura.SyncFact{ok(-1)}, "the last complete sync ended 1h1m0s ago"},
		"no sync at all within the lag":      {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := cura.Judge(began, now, c.syncs, thresholds)
			if c.breach == "" {
				require.True(t, e.Healthy(), "%v", e.Breaches)
				return
			}
			require.Len(t, e.Breaches, 1, "only this threshold is crossed")
			require.Contains(t, e.Breaches[0], c.breach)
		})
	}
	require.False(t, cura.Judge(began, now.Add(time.Second), nil, thresholds).Healthy(), "a window without any sync lags at last")
}

func TestMatchStrategies(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]cura.MatchStrategy{
		"mrn:urn:oid:1.2.3":                          {By: cura.MatchMRN, System: "urn:oid:1.2.3"},
		"national-id:http://hl7.org/fhir/sid/us-ssn": {By: cura.MatchNationalID, System: "http://hl7.org/fhir/sid/us-ssn"},
		"cura-id:https://cura.example/id":            {By: cura.MatchCuraID, System: "https://cura.example/id"},
	} {
		got, err := cura.ParseMatchStrategy(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, text, got.String())
	}
	for _, text := range []string{"", "mrn", "mrn:", "ssn:urn:x", "mrn:not a uri", "mrn:nouri", ":urn:x"} {
		_, err := cura.ParseMatchStrategy(text)
		require.Error(t, err, text)
	}
}

func TestCountsAddUp(t *testing.T) {
	t.Parallel()
	a := cura.Counts{Served: 10, Landed: 6, Stored: 4, Unchanged: 3, Quarantined: 1, InReview: 1, Withheld: 1}
	require.True(t, a.Balanced())
	require.True(t, a.Plus(a).Balanced())
	require.Equal(t, 20, a.Plus(a).Served)
	require.False(t, cura.Counts{Served: 1}.Balanced())
}
