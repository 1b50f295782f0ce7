package ehr

import "net/http"

const userAgentName = "cura-ehr-sync"

// userAgent tells the hospital's logs who is asking.
type userAgent struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t *userAgent) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", userAgentName)
	return t.next.RoundTrip(req)
}
