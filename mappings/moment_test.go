package mappings

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/cura"
)

func TestParseMoment(t *testing.T) {
	t.Parallel()
	offset := func(minutes int) *int { return &minutes }
	for _, tt := range []struct {
		text       string
		precision  cura.Precision
		start, end string
		offset     *int
	}{
		{"2024", cura.PrecisionYear, "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z", nil},
		{"2024-02", cura.PrecisionMonth, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z", nil},
		{"2023-12", cura.PrecisionMonth, "2023-12-01T00:00:00Z", "2024-01-01T00:00:00Z", nil},
		{"2024-02-29", cura.PrecisionDay, "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z", nil},
		{"2015-02-07T13:28Z", cura.PrecisionMinute, "2015-02-07T13:28:00Z", "2015-02-07T13:29:00Z", offset(0)},
		{"2015-02-07T13:28:17-05:00", cura.PrecisionSecond, "2015-02-07T18:28:17Z", "2015-02-07T18:28:18Z", offset(-300)},
		{"2015-02-07T13:28:17.2+14:00", cura.PrecisionSecond, "2015-02-06T23:28:17.2Z", "2015-02-06T23:28:17.3Z", offset(840)},
		{"2015-02-07T13:28:17.239Z", cura.PrecisionSecond, "2015-02-07T13:28:17.239Z", "2015-02-07T13:28:17.24Z", offset(0)},
		{"2015-02-07T13:28:17.123456789-00:30", cura.PrecisionSecond, "2015-02-07T13:58:17.123456Z", "2015-02-07T13:58:17.123457Z", offset(-30)},
		{"2015-02-07T00:00:00-00:00", cura.PrecisionSecond, "2015-02-07T00:00:00Z", "2015-02-07T00:00:01Z", offset(0)},
		{"0001-01-01", cura.PrecisionDay, "0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z", nil},
		{"9999", cura.PrecisionYear, "9999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", nil},
		{"9999-12-31T23:59:59-05:00", cura.PrecisionSecond, "9999-12-31T23:59:59.999998Z", "9999-12-31T23:59:59.999999Z", offset(-300)},
	} {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			got, ok := parseMoment(tt.text)
			require.True(t, ok)
			require.Equal(t, cura.Moment{
				Text: tt.text, Precision: tt.precision, Start: instant(t, tt.start), End: instant(t, tt.end), OffsetMinutes: tt.offset,
			}, got)
		})
	}
}

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return at
}

func TestParseMomentRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "20", "0000", "-0044", "2024-13", "2024-00", "2024-02-30", "2023-02-29", "2024-1-1", "2024/01/01", "01/02/2024", "２０２４",
		"2024-01-01T", "2024-01-01T10Z", "2024-01-01T10:00", "2024-01-01T10:00:00", "2024-01-01T24:00:00Z", "2024-01-01T10:60:00Z",
		"2024-01-01T23:59:60Z", "2024-01-01T10:00:00.Z", "2024-01-01T10:00:00,5Z", "2024-01-01T10:00.5Z", "2024-01-01T10:00:00.5x1Z",
		"2024-01-01T10:00:00+15:00", "2024-01-01T10:00:00+14:01", "2024-01-01T10:00:00+05", "2024-01-01T10:00:00+0500",
		"2024-01-01 10:00:00Z", "2024-01-01t10:00:00z", "2024-01-01T10:00:00ZZ", " 2024", "2024 ", "2024-01-01T10:00:00 Z", "0000-01-01T10:00:00Z",
	} {
		_, ok := parseMoment(text)
		require.False(t, ok, text)
	}
}

// A moment's span holds the instant that its text names, is as long as its precision, and its text reads back to the same.
func TestMomentProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seconds := rapid.Int64Range(time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC).Unix(), time.Date(9998, 12, 30, 0, 0, 0, 0, time.UTC).Unix())
		zone := rapid.IntRange(-14*60, 14*60).Draw(t, "offset")
		at := time.Unix(seconds.Draw(t, "seconds"), 0).In(time.FixedZone("", zone*60))
		digits := rapid.StringMatching(`[0-9]{0,9}`).Draw(t, "digits")
		layout := rapid.SampledFrom([]string{"2006", "2006-01", time.DateOnly, "2006-01-02T15:04Z07:00", time.RFC3339}).Draw(t, "layout")
		text := at.Format(layout)
		if layout == time.RFC3339 && digits != "" {
			cut := len("2006-01-02T15:04:05")
			text = text[:cut] + "." + digits + text[cut:]
		}
		m, ok := parseMoment(text)
		require.True(t, ok, text)
		require.Equal(t, text, m.Text)
		require.True(t, m.Start.Before(m.End))
		require.Equal(t, time.UTC, m.Start.Location())
		require.Equal(t, time.UTC, m.End.Location())

		named := at
		if m.OffsetMinutes == nil {
			// A date without a zone is taken as UTC.
			require.LessOrEqual(t, len(text), len(time.DateOnly))
			named = time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
		} else {
			require.Equal(t, zone, *m.OffsetMinutes)
		}
		if layout == time.RFC3339 && digits != "" {
			fraction, err := time.ParseDuration("0." + digits + "s")
			require.NoError(t, err)
			named = named.Add(fraction)
		}
		require.False(t, named.Before(m.Start), "%s begins after what it names", text)
		require.True(t, named.Before(m.End), "%s ends before what it names", text)

		again, ok := parseMoment(m.Text)
		require.True(t, ok)
		require.Equal(t, m, again)
		if strings.Contains(text, "T") {
			require.Equal(t, m.Start, mustParse(t, m.Start.Format(time.RFC3339Nano)).Start, "the start reads back as itself")
		}
	})
}

func mustParse(t require.TestingT, text string) cura.Moment {
	m, ok := parseMoment(text)
	require.True(t, ok, "%q", text)
	return m
}
