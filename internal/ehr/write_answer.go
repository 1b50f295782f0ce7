package ehr

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// MaybeProcessed reports whether, after this error of Prepare or Send, the EHR may have processed the write. It is false
// only where it provably hasn't: no byte of the request has left, or the EHR has refused it in so many words (DOMAIN §4).
// Everything else must be looked up, or decided by a person.
func MaybeProcessed(err error) bool {
	_, ok := errors.AsType[*unprocessed](err)
	return err != nil && !ok
}

// unprocessed is the cause of a fault after which the EHR can't have processed the write.
type unprocessed struct{ cause error }

// Error implements error.
func (u *unprocessed) Error() string { return u.cause.Error() }

// Unwrap gives the cause.
func (u *unprocessed) Unwrap() error { return u.cause }

// untouched marks a fault: the EHR can't have processed the write.
func untouched(err error) error {
	f := asFault(err)
	return fault.Wrap(f.Op, f.Kind, f.Detail, &unprocessed{cause: err}).WithFix(f.Fix).After(f.RetryAfter)
}

// errUnauthorized is the cause of the fault for a 401.
var errUnauthorized = errors.New("the server refuses the access token")

// asWriteFault is transportFault, and knows a deadline that has passed.
func asWriteFault(ctx context.Context, op string, err error) error {
	if errors.Is(err, ErrPastDeadline) || errors.Is(context.Cause(ctx), ErrPastDeadline) {
		return fault.Wrap(op, fault.Transient, "its deadline passed before it was sent", ErrPastDeadline).
			WithFix("Nothing to do: it is sent again with a new deadline")
	}
	return transportFault(ctx, op, err)
}

// brokenWrite makes a fault of a request that got no answer. ctx is the caller's, sending the request's own.
func brokenWrite(ctx, sending context.Context, r Request, a *attempt, err error) error {
	past := errors.Is(err, ErrPastDeadline) || errors.Is(context.Cause(sending), ErrPastDeadline)
	if a.left.Load() == 0 {
		if past {
			return untouched(asWriteFault(sending, r.op(), ErrPastDeadline))
		}
		return untouched(transportFault(ctx, r.op(), err))
	}
	const fix = "It is looked up at the EHR; where that can't tell, a person decides (starter push resolve)"
	if past {
		return fault.Wrap(r.op(), fault.Transient, "its deadline passed while it was being sent", ErrPastDeadline).WithFix(fix)
	}
	f := asFault(transportFault(ctx, r.op(), err))
	return fault.Wrap(f.Op, f.Kind, f.Detail+", after it was sent in part or whole", f).WithFix(fix)
}

// refusals are the statuses by which a server says that it has done nothing: 4xx but those, such as 408, that a server or a
// gateway also gives for want of time.
func refusals() []int {
	return []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusConflict,
		http.StatusGone, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
		http.StatusUnprocessableEntity, http.StatusPreconditionRequired, http.StatusTooManyRequests,
	}
}

// writeFault makes a fault of an answer that isn't 2xx. Of the body nothing but codes and plain element paths goes into it.
func (c *Client) writeFault(r Request, resp *http.Response) error {
	found := readIssues(resp.Body)
	asked := readRetryAfter(resp.Header, c.cfg.Clock())
	status := resp.StatusCode
	kind, fix := classifyWrite(r, status, found, asked.wait > 0)
	seen := statusText(resp)
	if text := found.text(r.Type); text != "" {
		seen += ", " + text
	}
	seen += asked.note()
	if id := requestIDOf(resp); id != "" {
		seen += ", request " + id
	}
	var cause error
	if status == http.StatusUnauthorized {
		cause = errUnauthorized
	}
	f := withCause(r.op(), kind, seen, cause).WithFix(fix).After(asked.wait)
	if slices.Contains(refusals(), status) || status == http.StatusServiceUnavailable && asked.wait > 0 {
		return untouched(f)
	}
	return f
}

func classifyWrite(r Request, status int, found issues, retry bool) (fault.Kind, string) {
	const fixManual = "Deliver this kind by hand (starter connection edit --deliver KIND=manual), or ask the hospital to switch %s on for this client"
	switch {
	case status == http.StatusTooManyRequests, found.have("throttled"), status == http.StatusServiceUnavailable && retry:
		return fault.Throttled, fixWait
	case status == http.StatusUnauthorized:
		return fault.Auth, "Check the client id and secret (starter connection edit), and ask the hospital whether the client is active: a fresh token was refused too"
	case status == http.StatusForbidden:
		letter := "c"
		if r.ID != "" {
			letter = "u"
		}
		return fault.Scope, fmt.Sprintf("Ask the hospital to grant this client system/%[1]s.write (SMART v2: system/%[1]s.%[2]s)", r.Type, letter)
	case status == http.StatusConflict, status == http.StatusPreconditionFailed:
		return conflictOf(r)
	case status == http.StatusNotFound && r.ID != "", status == http.StatusGone && r.ID != "":
		return fault.NotFound, "The resource isn't at the EHR any more: look there, then decide (starter push resolve)"
	case status == http.StatusNotFound, status == http.StatusGone, status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented, found.have("not-supported"):
		return fault.Unsupported, fmt.Sprintf(fixManual, "writes of "+r.Type)
	case tooLarge(status, found):
		return fault.Data, "The resource is too large for the server: shorten it, or deliver it by hand"
	case status == http.StatusUnsupportedMediaType, status == http.StatusNotAcceptable:
		return fault.Config, "Ask the hospital for the FHIR base that takes application/fhir+json"
	case status == http.StatusPreconditionRequired:
		return fault.Config, "The server wants If-Match with an update: choose the profile of this EHR (starter profiles)"
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity:
		if found.have("transient", "lock-error", "no-store", "timeout", "incomplete") {
			return fault.Transient, ""
		}
		return fault.Data, "The EHR refuses it: correct what the codes name in Cura and push a new version, or deliver it by hand"
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500:
		return fault.Transient, "If it stays, ask the hospital about its FHIR server"
	case status >= 300 && status < 400:
		return fault.Protocol, "Give the FHIR base's final address: redirects aren't followed, so that token and content go nowhere else"
	default:
		return fault.Protocol, fixBase
	}
}

func conflictOf(r Request) (fault.Kind, string) {
	switch {
	case r.IfNoneExist != "":
		return fault.Conflict, "More than one resource at the EHR has this identifier: look there, then decide (starter push resolve)"
	case r.IfMatch != "":
		return fault.Conflict, "Somebody has changed it at the EHR: read it there, then decide (starter push resolve)"
	default:
		return fault.Conflict, "The EHR says that this conflicts with what it has: look there, then decide (starter push resolve)"
	}
}

// receipt reads an answer of 2xx. Only a 200 that can't be the FHIR server's own is an error, whose outcome is open: a
// sign-on page or a firewall in its place, or an OperationOutcome that tells of an error.
func (c *Client) receipt(r Request, resp *http.Response) (Receipt, error) {
	got := Receipt{
		Type: r.Type, ID: r.ID, Status: resp.StatusCode, At: c.cfg.Clock(),
		Existed: r.ID == "" && r.IfNoneExist != "" && resp.StatusCode == http.StatusOK,
	}
	id, version := c.parseLocation(r.Type, resp.Header.Get("Location"))
	got.ETag, got.Version = readETag(resp.Header.Get("ETag"))
	if r.ID == "" {
		got.ID = id
	}
	if id != "" && id == got.ID && got.Version == "" {
		got.Version = version
	}
	if got.ID != "" && got.Version != "" {
		return got, nil
	}

	head, err := c.readAnswer(r, resp, id != "")
	if err != nil {
		return Receipt{}, err
	}
	if head.Type == r.Type && fhir.IsID(head.ID) && (got.ID == "" || got.ID == head.ID) {
		got.ID = head.ID
		if got.Version == "" && fhir.IsID(head.VersionID) {
			got.Version = head.VersionID
		}
	}
	return got, nil
}

// readAnswer reads what it can of the head of the resource in an answer of 2xx; a body that is missing or broken has none.
// The error is for a 200 that can't be the FHIR server's yes; located says that its Location makes it one.
func (c *Client) readAnswer(r Request, resp *http.Response, located bool) (fhir.ResourceHead, error) {
	body := &watched{from: bufio.NewReader(resp.Body)}
	doubtful := resp.StatusCode == http.StatusOK && !located
	if what := notJSON(body); what == "an HTML page" || what == "XML" || what == "something else" {
		if doubtful {
			return fhir.ResourceHead{}, fault.New(r.op(), fault.Protocol, "the server answered 200 with "+what+", so whether it has taken the write can't be told").
				WithFix("Check that no sign-on page, firewall or portal answers in the server's place; the write is looked up at the EHR")
		}
		return fhir.ResourceHead{}, nil
	}
	raw, _ := io.ReadAll(io.LimitReader(body, c.cfg.MaxResource)) // what was read before it broke may do
	head, _ := fhir.Head(raw)
	if head.Type == "OperationOutcome" && doubtful {
		if found := readIssues(bytes.NewReader(raw)); found.failed() {
			seen := "the server answered 200 with an OperationOutcome, " + found.text(r.Type)
			return fhir.ResourceHead{}, fault.New(r.op(), fault.Data, seen).WithFix("It is looked up at the EHR, which may have taken it all the same")
		}
	}
	return head, nil
}

// parseLocation reads [base/]Type/id[/_history/version] (R4 §3.1.0.8), absolute or relative. It gives "" for what doesn't
// lie under the FHIR base, or is of another type.
func (c *Client) parseLocation(typ, location string) (id, version string) {
	ref, err := url.Parse(location)
	if err != nil || location == "" {
		return "", ""
	}
	// From the base, not from the request: Epic's Type/id is meant so (DOMAIN §4).
	at := c.base.JoinPath("/").ResolveReference(ref)
	if slices.Contains(c.paging, originOf(at)) {
		at.Scheme, at.Host = c.base.Scheme, c.base.Host // as the server is called inside the hospital
	}
	if !below(c.base, at) {
		return "", ""
	}
	parts := strings.Split(strings.TrimPrefix(at.Path, c.base.Path+"/"), "/")
	if len(parts) < 2 || parts[0] != typ || !fhir.IsID(parts[1]) {
		return "", ""
	}
	switch {
	case len(parts) == 2:
		return parts[1], ""
	case len(parts) == 4 && parts[2] == "_history" && fhir.IsID(parts[3]):
		return parts[1], parts[3]
	default:
		return "", ""
	}
}

// entityTag is an ETag (RFC 9110 §8.8.3); FHIR puts the version between the quotes.
var entityTag = regexp.MustCompile(`^(?:W/)?"([!\x23-\x7e]{1,200})"$`)

// readETag gives the tag as it can be sent in If-Match, and its version; "" for none.
func readETag(text string) (tag, version string) {
	found := entityTag.FindStringSubmatch(text)
	if found == nil {
		return "", ""
	}
	if fhir.IsID(found[1]) {
		version = found[1]
	}
	return text, version
}
