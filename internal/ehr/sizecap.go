package ehr

import (
	"errors"
	"io"
	"net/http"
)

// ErrPageTooLarge is the cause of the fault for an answer over Config.MaxPage, and for a server that calls a search too
// costly: asking for fewer resources a page (Query.Count) may help.
var ErrPageTooLarge = errors.New("the answer is too large")

// sizeCap ends a body at its limit, counted after decompression, so that neither an endless answer nor a small one that
// inflates can fill the memory.
type sizeCap struct {
	next  http.RoundTripper
	limit int64
}

// RoundTrip implements [http.RoundTripper].
func (t *sizeCap) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &cappedBody{ReadCloser: resp.Body, left: t.limit}
	return resp, nil
}

type cappedBody struct {
	io.ReadCloser
	left int64
}

// Read gives at most one byte more than the limit, and fails on that byte: a body of just the limit is fine.
func (b *cappedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, ErrPageTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n + int(b.left), ErrPageTooLarge
	}
	return n, err
}
