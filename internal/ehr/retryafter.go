package ehr

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The bounds of Retry-After: servers have been seen to ask for 0 seconds and for five hours (DOMAIN §3).
const (
	minRetryAfter = time.Second
	maxRetryAfter = 30 * time.Minute
)

// The least numbers that are taken for a time since 1970 instead of a wait: in seconds and in milliseconds, both 2001.
const (
	leastEpoch      = 1e9
	leastEpochMilli = 1e12
)

// askedWait is what a server's Retry-After comes to.
type askedWait struct {
	// wait is within [1 s, 30 min]; 0 where the header is absent or says nothing that can be used.
	wait time.Duration
	// absurd says that the header wasn't a plain sane value: digits for up to 30 minutes, or a date at most so far from now.
	absurd bool
}

// note tells of an absurd value in an error text, without the server's own words.
func (a askedWait) note() string {
	switch {
	case !a.absurd:
		return ""
	case a.wait == 0:
		return " (it asked for an absurd time, which is passed over)"
	default:
		return fmt.Sprintf(" (it asked for an absurd time; taken as %s)", a.wait)
	}
}

var decimal = regexp.MustCompile(`^[+-]?\d+(\.\d*)?$`)

// readRetryAfter reads Retry-After as seconds or as an HTTP-date (RFC 9110 §10.2.3). Fractions, negative numbers, and
// seconds or milliseconds since 1970 are no such values; they occur, are understood, and are called absurd.
func readRetryAfter(h http.Header, now time.Time) askedWait {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return askedWait{}
	}
	// A moment is by the server's clock; where that is told, the difference is taken by it alone.
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	if at, err := http.ParseTime(text); err == nil {
		wait := at.Sub(now)
		return askedWait{wait: clampWait(wait), absurd: wait.Abs() > maxRetryAfter}
	}
	if !decimal.MatchString(text) {
		return askedWait{absurd: true}
	}
	// A number beyond the range comes as an infinity, which is clamped like any other.
	number, _ := strconv.ParseFloat(text, 64)
	plain := strings.Trim(text, "0123456789") == ""
	switch {
	case number >= leastEpochMilli:
		return askedWait{wait: sinceEpoch(number/1000, now), absurd: true}
	case number >= leastEpoch:
		return askedWait{wait: sinceEpoch(number, now), absurd: true}
	default:
		wait := clampWait(seconds(number))
		return askedWait{wait: wait, absurd: !plain || number > maxRetryAfter.Seconds()}
	}
}

func sinceEpoch(number float64, now time.Time) time.Duration {
	return clampWait(seconds(number - float64(now.Unix())))
}

// seconds makes a duration of any number, cut to what a duration can hold.
func seconds(number float64) time.Duration {
	const most = float64(math.MaxInt64 / int64(time.Second))
	return time.Duration(max(-most, min(number, most)) * float64(time.Second))
}

func clampWait(wait time.Duration) time.Duration { return min(max(wait, minRetryAfter), maxRetryAfter) }
