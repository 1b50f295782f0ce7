package consent

import "time"

// Next is the first instant after at when time alone may change what is decided by these consents, whatever is asked: a
// period of one begins or ends. Zero: never.
func Next(consents []Consent, at time.Time) time.Time {
	var next time.Time
	for _, c := range consents {
		e := evaluation{consent: c}
		root, why := e.provisionOf()
		if why == "" {
			next = earlier(next, nextBound(root, at))
		}
	}
	return next
}

func nextBound(provision map[string]any, at time.Time) time.Time {
	next := period(provision["period"], at).next
	for _, nested := range exceptions(provision) {
		next = earlier(next, nextBound(nested, at))
	}
	return next
}
