package ehr

import "net/http"

// bearer adds the access token, to requests of its home origin alone: oauth2.Transport adds it on every hop of a
// redirect, to whatever host that leads. On a 401 it fetches a new token and sends once more; a second 401 is the
// caller's.
type bearer struct {
	next   http.RoundTripper
	home   origin
	tokens *tokens
}

// RoundTrip implements [http.RoundTripper]. Only a GET is sent twice: the body of another method is used up.
func (t *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if originOf(req.URL) != t.home {
		return t.next.RoundTrip(req)
	}
	first, err := t.tokens.get(req.Context(), "")
	if err != nil {
		return nil, err
	}
	resp, err := t.send(req, first)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || req.Method != http.MethodGet {
		return resp, err
	}
	drain(resp.Body)
	_ = resp.Body.Close() // the answer is thrown away
	second, err := t.tokens.get(req.Context(), first.accessToken)
	if err != nil {
		return nil, err
	}
	return t.send(req, second)
}

func (t *bearer) send(req *http.Request, g grant) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+g.accessToken)
	return t.next.RoundTrip(req)
}
