package ehr

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// lastUpdated is the search parameter that every resource type has (R4 §3.1.1.1.2).
const lastUpdated = "_lastUpdated"

// instant is how bounds are sent: UTC with Z, since a raw + in an offset reads as a blank.
const instant = "2006-01-02T15:04:05.000Z"

// Query is one search, or one further page of it.
type Query struct {
	// Type is searched: in the whole system, unless Params name a patient.
	Type cura.ResourceType
	// Since is sent as _lastUpdated=ge…; zero for everything. Its finer parts than milliseconds are cut off, towards the
	// past.
	Since time.Time
	// Until is where the window ends, itself excluded: it is sent as a second _lastUpdated, le… one millisecond before it,
	// since some servers take ge and le alone (DOMAIN §2); zero for no end. A window that begins at this one's Until leaves
	// no gap and shares nothing.
	Until time.Time
	// IDsOnly asks for ids alone (_elements=id); a server may give whole resources all the same.
	IDsOnly bool
	// Count is sent as _count; 0 for the profile's page size, or the connection's. The profile's most is never exceeded.
	Count int
	// Params are further search parameters: a slice of the profile's rules, a patient. Patient identifiers among them are PHI
	// and go into the URL.
	Params url.Values
	// Next is Page.Next of the page before; with it, only Type is used besides.
	Next string
}

// Page is one page of a search.
type Page struct {
	// Entries are the matches alone, repeats included: what a run counts as served. One without search.mode is a match,
	// unless it is an OperationOutcome.
	Entries []fhir.Entry
	// Next is the cursor of the next page, "" at the end. A page without entries can have one. It holds the server's
	// link, which can contain PHI: keep it in the database, never in Temporal, a log or an error. It also counts the
	// pages of its chain, so that a loop is noticed after a restart too.
	Next string
	// ServerTime is the server's clock by the Date header, to the second; zero where the server sends none. A pass takes
	// its next watermark from its first page.
	ServerTime time.Time
	// Total is Bundle.total, nil where absent. It may be an estimate: don't check sums by it.
	Total *int
	// Dropped are parameters that link[self] no longer shows: the server has ignored them. It is known for the first page
	// alone, and only where the server gives a self link. _count, _elements and _sort are never among them: they don't change
	// which resources are found.
	Dropped []string
	// Included and Outcomes count the entries that are no matches: included resources, and OperationOutcomes.
	Included int
	Outcomes int
}

// Search gets one page. Errors are faults: Config or Unsupported for a search that this server doesn't do, Scope for a
// forbidden type, Expired for a next link that the server has forgotten (begin again from the watermark), Depth for one
// that it refuses (read by smaller windows), Protocol for an answer that isn't a searchset or for links that leave the
// origin or never end, besides Auth, Throttled, Transient, Network and TLS. For a page that is too large the cause is
// [ErrPageTooLarge], for parameters that the server refuses [ErrRefused].
func (c *Client) Search(ctx context.Context, q Query) (Page, error) {
	if !typeName(string(q.Type)) {
		return Page{}, badType()
	}
	r := request{errand: errandSearch, op: "searching " + string(q.Type), typ: q.Type, accept: fhirJSON}
	var at cursor
	var sent url.Values
	if q.Next == "" {
		sent = c.params(q)
		r.url = c.base.JoinPath(string(q.Type))
		r.url.RawQuery = sent.Encode()
	} else {
		r.errand, r.op = errandNextPage, "getting the next page of "+string(q.Type)
		var err error
		if at, err = c.parseCursor(r.op, q.Next); err != nil {
			return Page{}, err
		}
		r.url = at.link
	}

	return c.search(ctx, r, sent, at)
}

// search asks for the page at r; sent are the parameters that its self link must show, at is the place in the chain.
func (c *Client) search(ctx context.Context, r request, sent url.Values, at cursor) (Page, error) {
	var page Page
	var bundle fhir.Bundle
	err := c.ask(ctx, c.api, r, func(header http.Header, body *watched) (err error) {
		page.ServerTime = serverTime(header)
		bundle, err = fhir.ReadBundle(body, c.cfg.MaxResource, func(e fhir.Entry) error {
			page.add(e)
			return nil
		})
		return bundleFault(ctx, r, body, err)
	})
	if err != nil {
		return Page{}, err
	}
	if err := checkSearchset(r, bundle); err != nil {
		return Page{}, err
	}
	page.Total = bundle.Total
	page.Dropped = dropped(sent, bundle.Links["self"])
	if next := bundle.Links["next"]; next != "" {
		if page.Next, err = c.nextCursor(r, at, next); err != nil {
			return Page{}, err
		}
	}
	return page, nil
}

// Count asks how many resources a query matches, without getting them (_summary=count); Count, IDsOnly and Next of the
// query aren't used. It gives false where the server doesn't tell: it refuses, leaves out the total, or ignores _summary or
// a parameter of the query. Errors are those of Search.
func (c *Client) Count(ctx context.Context, q Query) (n int, ok bool, err error) {
	if !typeName(string(q.Type)) {
		return 0, false, badType()
	}
	q.Count, q.IDsOnly = 1, false // one entry is enough to see that _summary is ignored
	sent := c.params(q)
	sent.Set("_summary", "count")
	r := request{errand: errandSearch, op: "counting " + string(q.Type), typ: q.Type, accept: fhirJSON, url: c.base.JoinPath(string(q.Type))}
	r.url.RawQuery = sent.Encode()
	page, err := c.search(ctx, r, sent, cursor{})
	switch {
	case errors.Is(err, ErrRefused):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	case page.Total == nil || *page.Total < 0 || len(page.Entries) > 0 || len(page.Dropped) > 0:
		return 0, false, nil
	default:
		return *page.Total, true, nil
	}
}

func badType() error {
	return fault.New("searching", fault.Config, "the resource type isn't spelled like one of FHIR's").WithFix(fixConnection)
}

func (c *Client) params(q Query) url.Values {
	params := maps.Clone(q.Params)
	if params == nil {
		params = url.Values{}
	}
	if !q.Since.IsZero() {
		// Beside, not over, what Params hold: an upper bound is a second _lastUpdated.
		params[lastUpdated] = append(slices.Clone(params[lastUpdated]), "ge"+q.Since.UTC().Format(instant))
	}
	if !q.Until.IsZero() {
		params[lastUpdated] = append(slices.Clone(params[lastUpdated]), "le"+q.Until.Add(-time.Millisecond).UTC().Format(instant))
	}
	if q.IDsOnly {
		params.Set("_elements", "id")
	}
	count := c.cfg.Profile.PageSizeFor(q.Type, q.Count)
	if count <= 0 {
		count = c.cfg.PageSize
	}
	params.Set("_count", strconv.Itoa(count))
	return params
}

func (p *Page) add(e fhir.Entry) {
	switch {
	case e.Mode == "outcome" || e.Type == "OperationOutcome":
		p.Outcomes++
	case e.Mode == "include":
		p.Included++
	default:
		p.Entries = append(p.Entries, e)
	}
}

// bundleFault tells a connection that broke from an answer that isn't a Bundle. It is nil for nil.
func bundleFault(ctx context.Context, r request, body *watched, err error) error {
	switch {
	case err == nil:
		return nil
	case body.err != nil:
		return transportFault(ctx, r.op, body.err)
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return fault.Wrap(r.op, f.Kind, f.Detail, err).WithFix(f.Fix)
	}
	return fault.Wrap(r.op, fault.Protocol, "the answer isn't a FHIR Bundle", err).WithFix(fixBase)
}

// checkSearchset refuses an OperationOutcome that came as 200, and Bundles of another kind.
func checkSearchset(r request, bundle fhir.Bundle) error {
	if bundle.Type == "searchset" {
		return nil
	}
	if len(bundle.Outcome) > 0 {
		if found := readIssues(bytes.NewReader(bundle.Outcome)); found.failed() {
			const status = http.StatusBadRequest // what it should have been
			kind, fix := classify(r, status, found, 0)
			seen := "the server answered 200 with an OperationOutcome, " + found.text(string(r.typ))
			return withCause(r.op, kind, seen, cause(r, status, found)).WithFix(fix)
		}
	}
	return fault.New(r.op, fault.Protocol, "the answer isn't a Bundle of type searchset").WithFix(fixBase)
}

// nextCursor resolves a next link, which may be relative, against the request's URL.
func (c *Client) nextCursor(r request, at cursor, next string) (string, error) {
	ref, err := url.Parse(next)
	if err != nil {
		return "", fault.Wrap(r.op, fault.Protocol, "the next link isn't a URL", err).WithFix("Ask the hospital about its server's paging")
	}
	link := r.url.ResolveReference(ref)
	link.Fragment, link.RawFragment = "", ""
	if slices.Contains(c.paging, originOf(link)) {
		// The server writes its links as it is called inside the hospital; from here it answers at the base's origin alone.
		link.Scheme, link.Host = c.base.Scheme, c.base.Host
	}
	if err := c.checkLink(r.op, link); err != nil {
		return "", err
	}
	following, err := at.follow(r.op, link, c.cfg.MaxPages)
	if err != nil {
		return "", err
	}
	return following.String(), nil
}

// dropped lists the sent parameters that self doesn't show. Servers respell them (Epic: _lastupdated), so letter case is
// ignored; whether the server honoured a value it shows can't be seen.
func dropped(sent url.Values, self string) []string {
	if self == "" || len(sent) == 0 {
		return nil
	}
	u, err := url.Parse(self)
	if err != nil {
		return nil
	}
	shown := map[string]bool{"_count": true, "_elements": true, "_sort": true}
	for name := range u.Query() {
		shown[strings.ToLower(name)] = true
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		if !shown[strings.ToLower(name)] {
			names = append(names, name)
		}
	}
	return names
}

func serverTime(h http.Header) time.Time {
	t, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}
