package ehr

import "net/http"

// bearer adds the access token, to requests of its home origin alone: oauth2.Transport adds it on every hop of a
// redirect, to whatever host that leads. On a 401 it fetches a new token and sends once more; a second 401 is the
// caller's, unless that token was another request's, or has been good for one: then it may have died since, and one more is fetched.
type bearer struct {
	next   http.RoundTripper
	home   origin
	tokens *tokens
}

// RoundTrip implements [http.RoundTripper]. A request whose body is used up, and can't be had again, is sent once.
func (t *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if originOf(req.URL) != t.home {
		return t.next.RoundTrip(req)
	}
	g, fresh, err := t.tokens.get(req.Context(), "")
	if err != nil {
		return nil, err
	}
	for renewals := 0; ; renewals++ {
		resp, err := t.send(req, g)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			if err == nil {
				t.tokens.taken(g)
			}
			return resp, err
		}
		refused := renewals > 0 && fresh && !t.tokens.wasTaken(g)
		if !repeatable(req) || refused || renewals == maxRenewals {
			return resp, nil
		}
		drain(resp.Body)
		_ = resp.Body.Close() // the answer is thrown away
		if g, fresh, err = t.tokens.get(req.Context(), g.accessToken); err != nil {
			return nil, err
		}
		if req.GetBody != nil {
			again := req.Clone(req.Context())
			if again.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
			req = again
		}
	}
}

// maxRenewals bounds how often one request is sent again with another token.
const maxRenewals = 3

func repeatable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

func (t *bearer) send(req *http.Request, g grant) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+g.accessToken)
	return t.next.RoundTrip(req)
}
