package ehr

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// Written is a resource as the EHR holds it now. All of it but the versions is PHI.
type Written struct {
	ID string
	// Version is meta.versionId, and ETag what an update expects in If-Match; empty where the EHR tells none.
	Version, ETag string
	Resource      []byte
	// LastUpdated is meta.lastUpdated; zero where the EHR tells none.
	LastUpdated time.Time
}

const (
	// maxWritten is the most that is read of one patient in order to find one write.
	maxWritten   = 1000
	writtenCount = 100
	// readBackSlack is how far a server's clock may be behind ours: the endpoint test lets no more pass.
	readBackSlack = skewFailed
	fixLookUp     = "Look at the EHR for it, then decide (starter push resolve)"
)

// ByIdentifier is the query by an identifier of Cura's own, as Request.IfNoneExist takes it.
func ByIdentifier(system, value string) string {
	return url.Values{"identifier": {escaped(system) + "|" + escaped(value)}}.Encode()
}

// FindByIdentifier finds the resources that hold an identifier of Cura's own: none, one, or more where it was written twice.
// Errors are those of Search, and Unsupported where the server ignores the identifier, so that nothing can be told.
func (c *Client) FindByIdentifier(ctx context.Context, typ, system, value string) ([]Written, error) {
	params := url.Values{"identifier": {escaped(system) + "|" + escaped(value)}}
	entries, err := c.lookUp(ctx, typ, params, "identifier")
	if err != nil {
		return nil, err
	}
	var found []Written
	for _, e := range entries {
		if !holds(e.Resource, system, value) {
			return nil, fault.New(lookingUp(typ), fault.Unsupported, "the server answers a search by identifier with resources that don't have it").WithFix(fixLookUp)
		}
		found = append(found, written(e))
	}
	return found, nil
}

// ReadBack reads a patient's resources of a type that may be what was written since then: of the encounter alone where one
// is given and the server takes that, and changed since then (by our clock; some minutes earlier are read too) where it
// takes that; a zero since is no bound. Servers that don't are asked for more, so compare what the resources say. Up to 1,000 are read; more are
// fault.Unsupported, as is a server that gives another patient's too. Other errors are those of Search.
func (c *Client) ReadBack(ctx context.Context, typ, patientEHRID, encounterEHRID string, since time.Time) ([]Written, error) {
	if !fhir.IsID(patientEHRID) || encounterEHRID != "" && !fhir.IsID(encounterEHRID) {
		return nil, fault.New(lookingUp(typ), fault.Data, "the id of the patient or of the encounter isn't spelled as FHIR allows").WithFix(fixLookUp)
	}
	byPatient := url.Values{"patient": {patientEHRID}}
	byEncounter := byPatient
	if encounterEHRID != "" {
		byEncounter = url.Values{"patient": {patientEHRID}, "encounter": {encounterEHRID}}
	}
	bounded := maps.Clone(byEncounter)
	if !since.IsZero() {
		bounded.Set(lastUpdated, "ge"+since.Add(-readBackSlack).UTC().Format(instant))
	}
	var entries []fhir.Entry
	var err error
	for _, params := range []url.Values{bounded, byEncounter, byPatient} { // from the narrowest on
		if entries, err = c.lookUp(ctx, typ, params, "patient"); !errors.Is(err, ErrRefused) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	var found []Written
	for _, e := range entries {
		if subject := subjectOf(e.Resource); subject != "" && subject != patientEHRID {
			return nil, fault.New(lookingUp(typ), fault.Unsupported, "the server answers a search by patient with another patient's resources").WithFix(fixLookUp)
		}
		found = append(found, written(e))
	}
	return found, nil
}

// ReadWritten reads one resource by the id that the EHR gave it (PHI). Errors are those of Read: NotFound for 404, and for
// 410 with the cause [ErrGone].
func (c *Client) ReadWritten(ctx context.Context, typ, id string) (Written, error) {
	if !typeName(typ) || !fhir.IsID(id) {
		return Written{}, fault.New("reading what was written", fault.Data, "its type or id isn't spelled as FHIR allows").WithFix(fixLookUp)
	}
	r := request{errand: errandRead, op: "reading one " + typ, typ: cura.ResourceType(typ), accept: fhirJSON, url: c.base.JoinPath(typ, id)}
	var got Written
	err := c.ask(ctx, c.api, r, func(header http.Header, body *watched) error {
		raw, err := io.ReadAll(io.LimitReader(body, c.cfg.MaxResource+1))
		if err != nil {
			return transportFault(ctx, r.op, err)
		}
		if int64(len(raw)) > c.cfg.MaxResource {
			return c.oversize(r.op)
		}
		head, err := fhir.Head(raw)
		if err != nil || head.Type != typ || head.ID != id {
			return fault.New(r.op, fault.Protocol, "the answer isn't the resource that was asked for").WithFix(fixBase)
		}
		got = written(fhir.Entry{Resource: raw, ID: head.ID, VersionID: head.VersionID, LastUpdated: head.LastUpdated})
		if tag, version := readETag(header.Get("ETag")); tag != "" {
			got.ETag = tag
			if got.Version == "" {
				got.Version = version
			}
		}
		return nil
	})
	return got, err
}

func lookingUp(typ string) string {
	if !typeName(typ) {
		return "looking up what was written"
	}
	return "looking up " + typ
}

// lookUp reads all pages of a search, which the server must do by the parameter named.
func (c *Client) lookUp(ctx context.Context, typ string, params url.Values, by string) ([]fhir.Entry, error) {
	op := lookingUp(typ)
	q := Query{Type: cura.ResourceType(typ), Params: params, Count: writtenCount}
	var entries []fhir.Entry
	seen := map[string]bool{}
	for pages := 0; ; pages++ {
		page, err := c.Search(ctx, q)
		if err != nil {
			return nil, err
		}
		if drops(page, by) {
			return nil, fault.New(op, fault.Unsupported, "the server ignores "+by+": its self link doesn't show it").WithFix(fixLookUp)
		}
		for _, e := range page.Entries {
			switch {
			case e.Type != typ, e.ID != "" && seen[e.ID]: // the same can come on several pages (DOMAIN §2)
				continue
			case e.Oversize:
				return nil, c.oversize(op)
			}
			seen[e.ID] = true
			entries = append(entries, e)
		}
		if page.Next == "" {
			return entries, nil
		}
		if len(entries) >= maxWritten || pages >= maxWritten {
			return nil, fault.Newf(op, fault.Unsupported, "the server has more than %d, too many to look through", maxWritten).WithFix(fixLookUp)
		}
		q.Next = page.Next
	}
}

func written(e fhir.Entry) Written {
	w := Written{ID: e.ID, Version: e.VersionID, Resource: e.Resource}
	if fhir.IsID(e.VersionID) {
		w.ETag = `W/"` + e.VersionID + `"`
	}
	if at, err := time.Parse(time.RFC3339Nano, e.LastUpdated); err == nil {
		w.LastUpdated = at.UTC()
	}
	return w
}

// holds reports whether a resource has the identifier.
func holds(resource []byte, system, value string) bool {
	var r struct {
		Identifier json.RawMessage `json:"identifier"`
	}
	if json.Unmarshal(resource, &r) != nil {
		return false
	}
	var list []identifier
	if json.Unmarshal(r.Identifier, &list) != nil {
		list = make([]identifier, 1) // Consent of other versions has one alone
		if json.Unmarshal(r.Identifier, &list[0]) != nil {
			return false
		}
	}
	return slices.Contains(list, identifier{System: system, Value: value})
}

// subjectOf gives the id of the patient whom a resource is about, by its subject or, in a Consent, its patient; "" where it
// doesn't say so by a reference to a Patient.
func subjectOf(resource []byte) string {
	type reference struct {
		Reference string `json:"reference"`
	}
	var r struct {
		Subject reference `json:"subject"`
		Patient reference `json:"patient"`
	}
	if json.Unmarshal(resource, &r) != nil {
		return ""
	}
	to, _, _ := strings.Cut(cmp.Or(r.Subject.Reference, r.Patient.Reference), "/_history/")
	_, id, _ := strings.Cut("/"+to, "/Patient/")
	return id
}
