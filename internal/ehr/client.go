// Package ehr talks to a hospital's EHR: FHIR R4 over TLS, with a token from SMART Backend Services. It searches page by
// page, counts, reads single resources and Groups, finds patients, writes, looks up what was written and tests an endpoint,
// in the manner of the vendor's profile and at the pace of the connection. Every error it returns is a *fault.Error, free of PHI and secrets.
//
// The bearer token stays with the FHIR base's origin: redirects are never followed, next links must lie under the base,
// and the transport adds the token to no other origin, whatever the code above it asks for.
package ehr

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// Client talks to one connection's EHR. It is safe for concurrent use; one client per connection shares its token and
// its TCP connections. Close it when done.
type Client struct {
	cfg       Config
	base      *url.URL
	paging    []origin
	tls       *tls.Config
	dialer    *net.Dialer
	transport *http.Transport
	// open sends no token: discovery, metadata and the token request itself. api sends it, to the base's origin.
	open, api *http.Client
	// writes sends one write at a time over fenced connections of its own; it adds no token and waits for no turn.
	writes         *http.Client
	writeTransport *http.Transport
	tokens         *tokens
}

// New checks cfg and makes a client; it sends nothing. Errors are fault.Config with the sentence that says what to
// correct.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	base, err := cfg.parseBase()
	if err != nil {
		return nil, err
	}
	var tokenURL *url.URL
	if cfg.TokenURL != "" {
		if tokenURL, err = parseEndpoint("token URL", cfg.TokenURL, cfg.InsecureLoopback); err != nil {
			return nil, err
		}
	}
	roots, err := cfg.parseCA()
	if err != nil {
		return nil, err
	}
	if cfg.ClientID == "" || cfg.Secret == "" {
		return nil, fault.New("reading the connection's credentials", fault.Config, "the client id or its secret is empty").
			WithFix("Give both with starter connection edit (the secret from a file or at the prompt)")
	}

	if cfg.Profile, err = cfg.profile(); err != nil {
		return nil, err
	}

	c := &Client{cfg: cfg, base: base, paging: pagingOrigins(cfg.Profile.PagingHosts), tls: tlsConfig(roots), dialer: newDialer(cfg.Timeouts)}
	c.transport = newTransport(c.dialer, c.tls, cfg.Timeouts)
	stack := newStack(c.transport, cfg)
	c.open = &http.Client{Transport: stack, CheckRedirect: neverFollow}
	c.tokens = newTokens(c, tokenURL)
	c.api = &http.Client{Transport: &bearer{next: stack, home: originOf(base), tokens: c.tokens}, CheckRedirect: neverFollow}
	c.writeTransport = newWriteTransport(c.dialer, c.tls, cfg.Timeouts)
	if cfg.Pace != nil {
		cfg.Pace = prepaid{pace: cfg.Pace}
	}
	c.writes = &http.Client{Transport: newStack(c.writeTransport, cfg), CheckRedirect: neverFollow}
	return c, nil
}

// Close closes idle connections. Requests under way go on.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	c.writeTransport.CloseIdleConnections()
}

// neverFollow hands a redirect to the caller, which makes a fault of it: net/http would take the token along.
func neverFollow(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// errand says what a request is for: the same status means different things to a search and to a read.
type errand int

const (
	errandDocument errand = iota // metadata or discovery, which need no token
	errandSearch
	errandNextPage
	errandRead
	errandFind // a patient, by identifier or by $match
)

// request is one GET, or a POST where it has a body, and the words for its faults.
type request struct {
	errand errand
	// op names the operation in error texts, such as "searching Observation".
	op     string
	typ    cura.ResourceType
	url    *url.URL
	accept string
	// body and contentType are for a POST; a nil body means GET.
	body        []byte
	contentType string
}

const fhirJSON = "application/fhir+json"

// ask sends one request and gives read the answer, if that has status 200 and a body that begins like JSON; everything
// else is a fault. The body is closed when read returns.
func (c *Client) ask(ctx context.Context, client *http.Client, r request, read func(http.Header, *watched) error) error {
	req, err := c.httpRequest(ctx, r)
	if err != nil {
		return fault.Wrap(r.op, fault.Config, "the address can't be used", err).WithFix(fixConnection)
	}
	resp, err := client.Do(req)
	if err != nil {
		return transportFault(ctx, r.op, err)
	}
	defer func() {
		drain(resp.Body)
		_ = resp.Body.Close() // everything wanted of it was read
	}()
	if resp.StatusCode != http.StatusOK {
		return answerFault(r, resp, c.cfg.Clock())
	}
	body := &watched{from: bufio.NewReader(resp.Body)}
	if what := notJSON(body); what != "" {
		if body.err != nil {
			return transportFault(ctx, r.op, body.err)
		}
		return fault.New(r.op, fault.Protocol, "the server answered 200 with "+what+" instead of JSON").
			WithFix("Check that the FHIR base URL is the API's own address and that no sign-on page, firewall or portal answers in its place")
	}
	return read(resp.Header, body)
}

// httpRequest adds what the profile wants with every request under the FHIR base. A next link is opaque: what it has
// stays as it is.
func (c *Client) httpRequest(ctx context.Context, r request) (*http.Request, error) {
	u := *r.url
	has := u.Query()
	more := url.Values{}
	for name, value := range c.cfg.Profile.Query {
		if !has.Has(name) {
			more.Set(name, value)
		}
	}
	if len(more) > 0 {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+more.Encode(), "&")
	}
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if r.body != nil {
		method, body = http.MethodPost, bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for name, value := range c.cfg.Profile.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept", r.accept)
	if r.body != nil {
		req.Header.Set("Content-Type", r.contentType)
	}
	return req, nil
}

// watched remembers the error that ended a body, so that a parser's complaint about broken JSON can be told from a
// connection that broke.
type watched struct {
	from *bufio.Reader
	err  error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// notJSON looks at the first bytes and names what they are where they can't be a JSON object: Content-Type is not to
// be trusted either way. It gives "" for what may be JSON.
func notJSON(w *watched) string {
	if mark, _ := w.from.Peek(3); string(mark) == "\xef\xbb\xbf" {
		_, _ = w.from.Discard(3) // a byte order mark, which RFC 8259 §8.1 lets a reader pass over
	}
	for {
		b, err := w.from.Peek(1)
		switch {
		case err != nil:
			if !errors.Is(err, io.EOF) {
				w.err = err
			}
			return "an empty body"
		case b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n':
			_, _ = w.from.Discard(1) // Peek has just shown that the byte is there
			continue
		case b[0] == '{':
			return ""
		case b[0] != '<':
			return "something else"
		}
		start, _ := w.from.Peek(512) // a body shorter than that is no error here
		if start = bytes.ToLower(start); bytes.Contains(start, []byte("<html")) || bytes.Contains(start, []byte("<!doctype html")) {
			return "an HTML page"
		}
		return "XML"
	}
}

// drain reads what little is left of a body, so that its connection can be used again; a broken rest only costs that.
func drain(body io.Reader) { _, _ = io.Copy(io.Discard, io.LimitReader(body, 64<<10)) }
