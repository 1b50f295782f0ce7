package mappings

import (
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fhir/r4"
)

// lastInstant is the end of FHIR's calendar (R4 §2.24.0.1): what would go beyond it ends there, such as a period "until
// 9999-12-31", since neither RFC 3339 nor JSON encoders know a year 10000.
func lastInstant() time.Time {
	return time.Date(9999, time.December, 31, 23, 59, 59, 999_999_000, time.UTC)
}

// parseMoment reads a FHIR date, dateTime or instant (R4 §2.24.0.1). The span is as long as the text leaves open: a year, a
// month, a day, a minute, a second, or one unit of the last digit of a fraction, down to a microsecond, which is what
// databases keep. A date is taken as UTC; a time must carry its zone. Leap seconds and year 0 are refused.
func parseMoment(text string) (cura.Moment, bool) {
	m := cura.Moment{Text: text}
	var err error
	switch {
	case fits(text, "dddd"):
		m.Precision = cura.PrecisionYear
		m.Start, err = time.Parse("2006", text)
		m.End = m.Start.AddDate(1, 0, 0)
	case fits(text, "dddd-dd"):
		m.Precision = cura.PrecisionMonth
		m.Start, err = time.Parse("2006-01", text)
		m.End = m.Start.AddDate(0, 1, 0)
	case fits(text, "dddd-dd-dd"):
		m.Precision = cura.PrecisionDay
		m.Start, err = time.Parse(time.DateOnly, text)
		m.End = m.Start.AddDate(0, 0, 1)
	default:
		return parseTimed(text)
	}
	return bounded(m), err == nil && m.Start.Year() > 0
}

// parseTimed reads a moment with a time of day.
func parseTimed(text string) (cura.Moment, bool) {
	const minutes, seconds = "dddd-dd-ddTdd:dd", "dddd-dd-ddTdd:dd:dd"
	clock, zone := text, ""
	if i := strings.LastIndexAny(text, "Z+-"); i >= len(minutes) {
		clock, zone = text[:i], text[i:]
	}
	if zone != "Z" && (len(zone) != 6 || !fits(zone[1:], "dd:dd") || zone[1:] > "14:00") {
		return cura.Moment{}, false
	}
	whole, fraction, hasFraction := strings.Cut(clock, ".")
	m := cura.Moment{Text: text, Precision: cura.PrecisionSecond}
	layout, unit := "2006-01-02T15:04:05Z07:00", time.Second
	switch {
	case fits(whole, minutes) && !hasFraction:
		m.Precision, layout, unit = cura.PrecisionMinute, "2006-01-02T15:04Z07:00", time.Minute
	case !fits(whole, seconds) || hasFraction && !allDigits(fraction):
		return cura.Moment{}, false
	}
	at, err := time.Parse(layout, whole+zone)
	if err != nil || at.Year() < 1 {
		return cura.Moment{}, false
	}
	for i := 0; i < len(fraction) && unit > time.Microsecond; i++ {
		unit /= 10
		at = at.Add(time.Duration(fraction[i]-'0') * unit)
	}
	_, offset := at.Zone()
	offset /= 60
	m.OffsetMinutes = &offset
	m.Start = at.UTC()
	m.End = m.Start.Add(unit)
	return bounded(m), true
}

// bounded keeps a moment within FHIR's calendar, and its span not empty.
func bounded(m cura.Moment) cura.Moment {
	last := lastInstant()
	if !m.Start.Before(last) {
		m.Start = last.Add(-time.Microsecond)
	}
	if m.End.After(last) {
		m.End = last
	}
	return m
}

// fits reports whether text has the shape of pattern, where d stands for a digit.
func fits(text, pattern string) bool {
	if len(text) != len(pattern) {
		return false
	}
	for i := range len(text) {
		if pattern[i] == 'd' {
			if text[i] < '0' || text[i] > '9' {
				return false
			}
		} else if text[i] != pattern[i] {
			return false
		}
	}
	return true
}

func allDigits(text string) bool {
	for _, b := range []byte(text) {
		if b < '0' || b > '9' {
			return false
		}
	}
	return text != ""
}

// moment maps a dateTime or an instant; nil where there is none.
func (m *mapper) moment(element, text string) *cura.Moment {
	if text == "" {
		return nil
	}
	at, ok := parseMoment(text)
	if !ok {
		m.reject(m.path(element), "isn't a date or time that R4 knows")
		return nil
	}
	return &at
}

// date maps a date, which may be partial but has no time of day.
func (m *mapper) date(element, text string) *cura.Moment {
	at := m.moment(element, text)
	if at != nil && at.OffsetMinutes != nil {
		m.reject(m.path(element), "has a time of day where a date belongs")
		return nil
	}
	return at
}

// period maps a Period; nil where it is absent or has neither side.
func (m *mapper) period(element string, p *r4.Period) *cura.Period {
	if p == nil || p.Start == "" && p.End == "" {
		return nil
	}
	return &cura.Period{Start: m.moment(element+".start", p.Start), End: m.moment(element+".end", p.End)}
}
