package ehr

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// Read gets one resource by the id that the EHR gave it (PHI), as the bytes that came. Errors are those of ReadPage, and
// Data for a resource over Config.MaxResource.
func (c *Client) Read(ctx context.Context, typ cura.ResourceType, id string) ([]byte, error) {
	page, err := c.ReadPage(ctx, typ, id)
	if err != nil {
		return nil, err
	}
	if page.Entries[0].Oversize {
		return nil, c.oversize("reading one " + string(typ))
	}
	return page.Entries[0].Resource, nil
}

// ReadPage gets one resource by the id that the EHR gave it (PHI), as a page of that one entry with the server's time. A
// resource over Config.MaxResource is an entry marked oversize. Errors are faults: NotFound for 404, and for 410 with the
// cause [ErrGone]; Data for a resource that the server can't give, Scope for a forbidden type, Protocol for an answer that
// isn't one resource of that type, and those of transport and token.
func (c *Client) ReadPage(ctx context.Context, typ cura.ResourceType, id string) (Page, error) {
	if !typeName(string(typ)) || !fhir.IsID(id) {
		return Page{}, fault.New("reading one resource", fault.Data, "its type or id isn't spelled as FHIR allows").
			WithFix("Ask the hospital about references in its data that can't be followed")
	}
	return c.readPage(ctx, typ, c.base.JoinPath(string(typ), id))
}

func (c *Client) readPage(ctx context.Context, typ cura.ResourceType, at *url.URL) (Page, error) {
	r := request{errand: errandRead, op: "reading one " + string(typ), typ: typ, accept: fhirJSON, url: at}
	var page Page
	err := c.ask(ctx, c.api, r, func(header http.Header, body *watched) error {
		page.ServerTime = serverTime(header)
		// Put into a Bundle the resource is read as one of a search is: hashed as it comes, and never held when too large.
		whole := &watched{from: bufio.NewReader(io.MultiReader(
			strings.NewReader(`{"resourceType":"Bundle","entry":[{"resource":`), body, strings.NewReader(`}]}`)))}
		_, err := fhir.ReadBundle(whole, c.cfg.MaxResource, func(e fhir.Entry) error {
			page.Entries = append(page.Entries, e)
			return nil
		})
		return bundleFault(ctx, r, whole, err)
	})
	switch {
	case err != nil:
		return Page{}, err
	case len(page.Entries) != 1 || page.Entries[0].Type != string(typ):
		return Page{}, fault.New(r.op, fault.Protocol, "the answer is a resource of another type, or none").WithFix(fixBase)
	default:
		return page, nil
	}
}

func (c *Client) oversize(op string) error {
	return fault.Newf(op, fault.Data, "the resource is larger than %d bytes", c.cfg.MaxResource).
		WithFix("The resource is set aside; raise the cap if such resources are wanted")
}
