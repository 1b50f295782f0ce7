package ehr

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/fault"
)

var (
	// ErrRefused is the cause of the fault for a search whose parameters the server refuses: 400, 422, 405, 501, or an issue
	// not-supported. A category that is refused isn't offered.
	ErrRefused = errors.New("the server refuses the search's parameters")
	// ErrGone is the cause of the fault for a read that the server answers with 410: the resource was there, and is deleted.
	// A 404 has no cause.
	ErrGone = errors.New("the resource is deleted")
)

const (
	fixBase     = "Check that the FHIR base URL is the one the hospital gave, down to the path"
	fixStrategy = "Choose the profile of this EHR (starter profiles lists them, starter connection edit --profile sets it), or " +
		"another strategy for the type (starter connection edit --strategy TYPE=roster)"
	fixWait  = "Nothing to do: it is tried again when the server says"
	fixAgain = "Nothing to do: the query begins again from its watermark"
	fixDepth = "Nothing to do: it is read by smaller windows"
)

// answerFault makes a fault of an answer that isn't 200, by status and OperationOutcome codes (DOMAIN §5). Of the body
// nothing but those codes and plain element paths goes into the text.
func answerFault(r request, resp *http.Response, now time.Time) *fault.Error {
	issues := readIssues(resp.Body)
	asked := readRetryAfter(resp.Header, now)
	kind, fix := classify(r, resp.StatusCode, issues, asked.wait)
	seen := statusText(resp)
	if text := issues.text(string(r.typ)); text != "" {
		seen += ", " + text
	}
	seen += asked.note()
	if id := requestIDOf(resp); id != "" {
		seen += ", request " + id
	}
	return withCause(r.op, kind, seen, cause(r, resp.StatusCode, issues)).WithFix(fix).After(asked.wait)
}

func withCause(op string, kind fault.Kind, seen string, cause error) *fault.Error {
	if cause == nil {
		return fault.New(op, kind, seen)
	}
	return fault.Wrap(op, kind, seen, cause)
}

// cause is what callers ask an answer's fault for with errors.Is; nil for none of it.
func cause(r request, status int, issues issues) error {
	switch {
	case tooLarge(status, issues):
		return ErrPageTooLarge
	case r.errand == errandRead && (status == http.StatusGone || (status == http.StatusNotFound && issues.have("deleted"))):
		return ErrGone
	case (r.errand == errandSearch || r.errand == errandFind) && refused(r, status, issues):
		return ErrRefused
	default:
		return nil
	}
}

// refused reports whether the server has understood the request and doesn't do such a search. Where it says that it can't
// just now, that is no refusal.
func refused(r request, status int, issues issues) bool {
	if issues.have("throttled", "transient", "lock-error", "no-store", "timeout", "incomplete") {
		return false
	}
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	case http.StatusUnsupportedMediaType:
		return r.body != nil
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return false
	default:
		return issues.have("not-supported")
	}
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
	case r.errand == errandNextPage && deadEnd(status) && !tooLarge(status, issues) && refused(r, status, issues):
		return fault.Depth, fixDepth
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
			// athenahealth answers so, with the code forbidden, where a parameter is missing: no question of scopes.
			return fault.Config, "The server refuses the search's parameters. " + fixStrategy
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

// deadEnd is how servers answer a next link that leads beyond the depth to which they page, such as Medplum's offset of
// 10,000 (DOMAIN §2): it was theirs, so nothing else can be wrong with it.
func deadEnd(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusUnprocessableEntity
}

func unsupportedFix(r request) string {
	switch r.errand {
	case errandDocument:
		return fixBase
	case errandFind:
		return "Choose a profile that finds patients in another way (starter profiles), or give the patients as a list (starter roster upload)"
	case errandSearch, errandNextPage, errandRead:
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
	case errandSearch, errandFind:
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
