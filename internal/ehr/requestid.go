package ehr

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
)

const requestIDHeader = "X-Request-Id"

// requestID gives every request a random id that both sides can log: it means nothing by itself, and lets the hospital
// find the request that a fault speaks of.
type requestID struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (t *requestID) RoundTrip(req *http.Request) (*http.Response, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand since Go 1.24)
	req = req.Clone(req.Context())
	req.Header.Set(requestIDHeader, hex.EncodeToString(id[:]))
	return t.next.RoundTrip(req)
}
