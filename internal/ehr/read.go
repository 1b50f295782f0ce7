package ehr

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// Read gets one resource by the id that the EHR gave it (PHI), as the bytes that came. Errors are faults: NotFound for 404
// and 410 (the detail tells which), Data for a resource over Config.MaxResource or one that the server can't give, Scope
// for a forbidden type, and those of transport and token.
func (c *Client) Read(ctx context.Context, typ cura.ResourceType, id string) ([]byte, error) {
	r := request{errand: errandRead, op: "reading one " + string(typ), typ: typ, accept: fhirJSON}
	if !typeName(string(typ)) || !fhir.IsID(id) {
		return nil, fault.New("reading one resource", fault.Data, "its type or id isn't spelled as FHIR allows").
			WithFix("Ask the hospital about references in its data that can't be followed")
	}
	r.url = c.base.JoinPath(string(typ), id)
	var raw []byte
	err := c.get(ctx, c.api, r, func(_ http.Header, body *watched) (err error) {
		raw, err = c.readResource(ctx, r, body)
		return err
	})
	return raw, err
}

// readResource reads a whole resource of r.typ.
func (c *Client) readResource(ctx context.Context, r request, body *watched) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(body, c.cfg.MaxResource+1))
	if err != nil {
		return nil, transportFault(ctx, r.op, err)
	}
	if int64(len(raw)) > c.cfg.MaxResource {
		return nil, fault.Newf(r.op, fault.Data, "the resource is larger than %d bytes", c.cfg.MaxResource).
			WithFix("The resource is set aside; raise the cap if such resources are wanted")
	}
	var head struct {
		ResourceType string `json:"resourceType"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fault.Wrap(r.op, fault.Protocol, "the answer is broken JSON", err).
			WithFix("Ask the hospital about its FHIR server")
	}
	if head.ResourceType != string(r.typ) {
		return nil, fault.New(r.op, fault.Protocol, "the answer is a resource of another type, or none").WithFix(fixBase)
	}
	return raw, nil
}
