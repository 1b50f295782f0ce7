package ehr

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// The bounds of Retry-After: servers have been seen to ask for 0 seconds and for five hours (DOMAIN §3).
const (
	minRetryAfter = time.Second
	maxRetryAfter = 30 * time.Minute
)

const (
	fixBase    = "Check that the FHIR base URL is the one the hospital gave, down to the path"
	fixProfile = "The profile generic needs a server with system-wide search by _lastUpdated; other servers can't be read yet"
	fixWait    = "Nothing to do: it is tried again when the server says"
	fixAgain   = "Nothing to do: the query begins again from its watermark"
)

// answerFault makes a fault of an answer that isn't 200, by status and OperationOutcome codes (DOMAIN §5). Of the body
// nothing but those codes and plain element paths goes into the text.
func answerFault(r request, resp *http.Response, now time.Time) *fault.Error {
	issues := readIssues(resp.Body)
	retry := retryAfter(resp.Header, now)
	kind, fix := classify(r, resp.StatusCode, issues, retry)
	seen := statusText(resp)
	if text := issues.text(string(r.typ)); text != "" {
		seen += ", " + text
	}
	if id := requestIDOf(resp); id != "" {
		seen += ", request " + id
	}
	f := fault.New(r.op, kind, seen)
	if tooLarge(resp.StatusCode, issues) {
		f = fault.Wrap(r.op, kind, seen, ErrPageTooLarge)
	}
	return f.WithFix(fix).After(retry)
}

func classify(r request, status int, issues issues, retry time.Duration) (fault.Kind, string) {
	switch {
	case status == http.StatusTooManyRequests, issues.have("throttled"), status == http.StatusServiceUnavailable && retry > 0:
		return fault.Throttled, fixWait
	case status == http.StatusUnauthorized:
		return fault.Auth, "Check the client id and secret (starter connection edit), and ask the hospital whether the client is active: a fresh token was refused too"
	case status == http.StatusForbidden && r.errand == errandDocument:
		return fault.Config, "Ask the hospital to let this host reach the FHIR base: a firewall may answer in its place"
	case status == http.StatusForbidden:
		return fault.Scope, fmt.Sprintf("Ask the hospital to grant this client system/%[1]s.read (SMART v2: system/%[1]s.rs)", r.typ)
	case status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented, issues.have("not-supported"):
		return fault.Unsupported, unsupportedFix(r)
	case tooLarge(status, issues):
		return fault.Protocol, "Ask for fewer resources a page"
	case status == http.StatusNotFound, status == http.StatusGone:
		return gone(r)
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity:
		switch {
		case issues.have("transient", "lock-error", "no-store", "timeout", "incomplete"):
			return fault.Transient, ""
		case r.errand == errandRead:
			return fault.Data, "The resource is set aside; ask the hospital why its server can't give it"
		case r.errand == errandDocument:
			return fault.Config, fixBase
		default:
			return fault.Config, "The server refuses the search's parameters. " + fixProfile
		}
	case status == http.StatusNotAcceptable, status == http.StatusUnsupportedMediaType:
		return fault.Config, "Ask the hospital for the FHIR base that gives application/fhir+json"
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500:
		return fault.Transient, "If it stays, ask the hospital about its FHIR server"
	case status >= 300 && status < 400:
		return fault.Protocol, "Give the FHIR base's final address: redirects aren't followed, so that the token goes nowhere else"
	default:
		return fault.Protocol, fixBase
	}
}

func unsupportedFix(r request) string {
	if r.errand == errandDocument {
		return fixBase
	}
	return fmt.Sprintf("Ask the hospital to switch %s on for this client, or take it off the connection's types", r.typ)
}

// gone is 404 and 410, which mean something else to each errand.
func gone(r request) (fault.Kind, string) {
	switch r.errand {
	case errandNextPage:
		return fault.Expired, fixAgain
	case errandRead:
		return fault.NotFound, ""
	case errandSearch:
		return fault.Unsupported, unsupportedFix(r)
	case errandDocument:
	}
	return fault.Config, fixBase
}

func tooLarge(status int, issues issues) bool {
	return status == http.StatusRequestEntityTooLarge || issues.have("too-costly", "too-long")
}

func statusText(resp *http.Response) string {
	return "the server answered " + strings.TrimSpace(strconv.Itoa(resp.StatusCode)+" "+http.StatusText(resp.StatusCode))
}

// requestIDOf is the id that we gave the request: the server's own spelling of it may be anything.
func requestIDOf(resp *http.Response) string {
	if resp.Request == nil {
		return ""
	}
	return resp.Request.Header.Get(requestIDHeader)
}

// retryAfter reads Retry-After as seconds or as an HTTP-date (RFC 9110 §10.2.3), clamped to [1 s, 30 min]. It is 0 where
// the server says nothing that can be read.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0
	}
	wait := maxRetryAfter
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		// The date is by the server's clock; where that is told, the difference is taken by it alone.
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		wait = at.Sub(now)
	} else if strings.Trim(text, "0123456789") != "" {
		return 0
	}
	return min(max(wait, minRetryAfter), maxRetryAfter)
}

// issueCodes is the value set of OperationOutcome.issue.code (R4 §2.28.5.4): a server's own words could hold anything.
func issueCodes() []string {
	return []string{
		"invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired", "forbidden",
		"suppressed", "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long",
		"code-invalid", "extension", "too-costly", "business-rule", "conflict", "transient", "lock-error", "no-store",
		"exception", "timeout", "incomplete", "throttled", "informational",
	}
}

func knownIssueCode(code string) bool { return slices.Contains(issueCodes(), code) }
