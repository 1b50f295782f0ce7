package sandbox

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// instantLayout is a FHIR instant with milliseconds (R4 §2.24.0.1), in UTC.
const instantLayout = "2006-01-02T15:04:05.000Z07:00"

// formatInstant writes a FHIR instant in UTC.
func formatInstant(t time.Time) string { return t.UTC().Format(instantLayout) }

// dateRange is the stretch of time that a partial FHIR date stands for, [low, high).
type dateRange struct{ low, high time.Time }

// The regular expression of R4 §2.24.0.1 dateTime, with minutes allowed alone as search values may (§3.1.1.4.7).
var datePattern = regexp.MustCompile(`^(\d{4})(-\d{2}(-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?)?)?)?$`)

// parseDate reads a year, month, day, minute, second or fraction of a second. A time without a zone is taken as UTC,
// the sandbox's own zone.
func parseDate(text string) (dateRange, error) {
	// A '+' of an offset that was not percent-encoded arrives as a space; servers that are kind take it back.
	text = strings.Replace(text, " ", "+", 1)
	parts := datePattern.FindStringSubmatch(text)
	if parts == nil {
		return dateRange{}, errDate
	}
	zone := parts[7]
	body := strings.TrimSuffix(text, zone)
	var layout string
	var step func(time.Time) time.Time
	switch fraction := parts[6]; {
	case fraction != "":
		layout = "2006-01-02T15:04:05." + strings.Repeat("0", len(fraction)-1)
		unit := time.Second
		for range len(fraction) - 1 {
			unit /= 10
		}
		step = func(t time.Time) time.Time { return t.Add(unit) }
	case parts[5] != "":
		layout = "2006-01-02T15:04:05"
		step = func(t time.Time) time.Time { return t.Add(time.Second) }
	case parts[4] != "":
		layout = "2006-01-02T15:04"
		step = func(t time.Time) time.Time { return t.Add(time.Minute) }
	case parts[3] != "":
		layout = "2006-01-02"
		step = func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }
	case parts[2] != "":
		layout = "2006-01"
		step = func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }
	default:
		layout = "2006"
		step = func(t time.Time) time.Time { return t.AddDate(1, 0, 0) }
	}
	if zone != "" {
		layout, body = layout+"Z07:00", body+zone
	}
	low, err := time.Parse(layout, body)
	if err != nil {
		return dateRange{}, errDate
	}
	return dateRange{low, step(low)}, nil
}

// dateFilter is one value of a date search parameter: its prefix and its range (R4 §3.1.1.4.6, §3.1.1.4.7).
type dateFilter struct {
	prefix string
	dateRange
}

// parseDateFilter reads a value such as "ge2024-03-01". Without a prefix it means eq.
func parseDateFilter(value string) (dateFilter, error) {
	prefix := "eq"
	if len(value) > 2 && value[0] >= 'a' && value[0] <= 'z' {
		prefix, value = value[:2], value[2:]
	}
	switch prefix {
	case "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap":
	default:
		return dateFilter{}, fmt.Errorf("the prefix is none of eq, ne, gt, lt, ge, le, sa, eb, ap: %w", errDate)
	}
	r, err := parseDate(value)
	return dateFilter{prefix, r}, err
}

// matches tells whether the filter lets an instant through. An instant is a point, so that the overlaps which the
// specification defines between two ranges come down to where the point lies.
func (f dateFilter) matches(t, now time.Time) bool {
	within := !t.Before(f.low) && t.Before(f.high)
	switch f.prefix {
	case "eq":
		return within
	case "ne":
		return !within
	case "gt", "sa":
		return !t.Before(f.high)
	case "lt", "eb":
		return t.Before(f.low)
	case "ge":
		return !t.Before(f.low)
	case "le":
		return t.Before(f.high)
	default: // ap: the specification recommends 10 % of the gap to now
		slack := now.Sub(f.low).Abs() / 10
		return !t.Before(f.low.Add(-slack)) && t.Before(f.high.Add(slack))
	}
}
