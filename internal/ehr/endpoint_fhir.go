package ehr

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// capabilities is what the test reads of a CapabilityStatement (R4 §2.40).
type capabilities struct {
	ResourceType string `json:"resourceType"`
	FHIRVersion  string `json:"fhirVersion"`
	Rest         []struct {
		Mode        string        `json:"mode"`
		Resource    []offeredType `json:"resource"`
		SearchParam []searchParam `json:"searchParam"`
	} `json:"rest"`
}

type offeredType struct {
	Type        string        `json:"type"`
	Interaction []interaction `json:"interaction"`
	SearchParam []searchParam `json:"searchParam"`
	// ConditionalCreate is true where the server says so; anything may stand there.
	ConditionalCreate json.RawMessage `json:"conditionalCreate"`
}

type interaction struct {
	Code string `json:"code"`
}

type searchParam struct {
	Name string `json:"name"`
}

func (o offeredType) offers(code string) bool {
	return slices.ContainsFunc(o.Interaction, func(i interaction) bool { return i.Code == code })
}

func (o offeredType) searchesBy(name string) bool {
	return slices.ContainsFunc(o.SearchParam, func(p searchParam) bool { return strings.EqualFold(p.Name, name) })
}

const opMetadata = "reading the server's metadata"

// versionText is what may be shown of fhirVersion.
var versionText = regexp.MustCompile(`^\d{1,2}\.\d{1,3}(\.\d{1,3})?(-[A-Za-z0-9.]{1,20})?$`)

func (t *tester) metadata(ctx context.Context) bool {
	before := t.c.cfg.Clock()
	r := request{errand: errandDocument, op: opMetadata, url: t.c.base.JoinPath("metadata"), accept: fhirJSON}
	err := t.c.ask(ctx, t.c.open, r, func(header http.Header, body *watched) error {
		after := t.c.cfg.Clock()
		t.serverDate, t.ours = serverTime(header), before.Add(after.Sub(before)/2)
		err := json.NewDecoder(body).Decode(&t.capabilities)
		if body.err != nil {
			return transportFault(ctx, opMetadata, body.err)
		}
		if err != nil {
			return fault.Wrap(opMetadata, fault.Protocol, "it is broken JSON, or not a CapabilityStatement", err).WithFix(fixBase)
		}
		return nil
	})
	if err != nil {
		t.failed(CheckMetadata, "", err)
		return false
	}
	const fixR4 = "Ask the hospital for the base URL of its FHIR R4 (4.0.1) endpoint"
	version := t.capabilities.FHIRVersion
	shown := version
	if !versionText.MatchString(version) {
		shown = "a version that can't be read"
	}
	switch kind := t.capabilities.ResourceType; {
	case kind == "Conformance":
		t.fail(CheckMetadata, "", "the server speaks FHIR DSTU2", fixR4)
	case kind != "CapabilityStatement":
		t.fail(CheckMetadata, "", "metadata is JSON, but no CapabilityStatement", fixBase)
	case version == "":
		t.fail(CheckMetadata, "", "the CapabilityStatement names no fhirVersion", fixR4)
	case version != "4.0" && !strings.HasPrefix(version, "4.0."):
		name := ""
		if strings.HasPrefix(version, "3.") {
			name = " (STU3)"
		}
		t.fail(CheckMetadata, "", "the server speaks FHIR "+shown+name+", not R4", fixR4)
	default:
		t.ok(CheckMetadata, "", "FHIR "+shown+", JSON")
		return true
	}
	return false
}

// offeredTypes compares what the connection pulls with what the server says it has. It is the server's word only: the
// reads tell.
func (t *tester) offeredTypes() {
	offered := t.offered()
	for _, typ := range t.types {
		o, found := offered[string(typ)]
		if !found {
			t.warn(CheckTypes, typ, "metadata doesn't list it", unsupportedFix(request{errand: errandSearch, typ: typ}))
			continue
		}
		var lacking []string
		for _, code := range []string{"search-type", "read"} {
			if !o.offers(code) {
				lacking = append(lacking, code)
			}
		}
		if len(lacking) > 0 {
			t.warn(CheckTypes, typ, "metadata lists it without "+strings.Join(lacking, " and "), "Nothing to do if the read of it below works; otherwise ask the hospital to switch that on")
			continue
		}
		t.ok(CheckTypes, typ, "search and read are offered")
	}
	for name := range offered {
		if typeName(name) && !cura.ResourceType(name).Pulled() {
			t.report.Offered = append(t.report.Offered, name)
		}
	}
	slices.Sort(t.report.Offered)
}

// offered is rest.resource of the server's side, by type.
func (t *tester) offered() map[string]offeredType {
	byType := map[string]offeredType{}
	for _, rest := range t.capabilities.Rest {
		if rest.Mode == "client" {
			continue
		}
		for _, o := range rest.Resource {
			o.SearchParam = append(slices.Clone(o.SearchParam), rest.SearchParam...)
			byType[o.Type] = o
		}
	}
	return byType
}
