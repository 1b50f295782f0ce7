package ehr

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

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
	err := t.c.get(ctx, t.c.open, r, func(header http.Header, body *watched) error {
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

// probeSince is older than any EHR's resources: the search is the incremental one, and everything matches.
func probeSince() time.Time { return time.Date(1990, time.January, 1, 0, 0, 0, 0, time.UTC) }

// reads does one real search of each type.
func (t *tester) reads(ctx context.Context) {
	offered := t.offered()
	for _, typ := range t.types {
		o, found := offered[string(typ)]
		if !t.read(ctx, typ, found, o.searchesBy(lastUpdated)) {
			return
		}
	}
	if len(t.report.Forbidden)+len(t.report.Missing) == len(t.types) {
		t.fail(CheckRead, "", "not one of the resource types can be read", "Ask the hospital to grant this client at least system/Patient.read (SMART v2: system/Patient.rs)")
	}
}

// read tries one type, and gives false where the rest can only fail likewise.
func (t *tester) read(ctx context.Context, typ cura.ResourceType, offered, listed bool) bool {
	page, err := t.c.Search(ctx, Query{Type: typ, Since: probeSince(), Count: 1})
	refusesBound := false
	if fault.Is(err, fault.Config) || fault.Is(err, fault.Unsupported) {
		// Is it the bound that it refuses, or the search? A second one without it tells.
		if again, againErr := t.c.Search(ctx, Query{Type: typ, Count: 1}); againErr == nil {
			page, err, refusesBound = again, nil, true
		}
	}
	if err != nil {
		return t.unread(typ, offered, err)
	}
	t.served(typ, page)
	switch {
	case refusesBound:
		t.fail(CheckSearchParams, typ, "the server refuses _lastUpdated", fixProfile)
	case slices.ContainsFunc(page.Dropped, func(name string) bool { return strings.EqualFold(name, lastUpdated) }):
		t.fail(CheckSearchParams, typ, "the server ignores _lastUpdated: its self link doesn't show it", fixProfile)
	case listed:
		t.ok(CheckSearchParams, typ, "_lastUpdated is listed in metadata and taken")
	default:
		t.ok(CheckSearchParams, typ, "_lastUpdated isn't listed in metadata but taken")
	}
	return true
}

func (t *tester) served(typ cura.ResourceType, page Page) {
	switch {
	case len(page.Entries) == 0 && page.Next == "" && typ == cura.Patient:
		t.warn(CheckRead, typ, "the search works and finds 0 resources: the server is empty for this client",
			"Ask the hospital whether this is the right environment, and which patients the client may see")
	case len(page.Entries) == 0 && page.Next == "":
		t.ok(CheckRead, typ, "the search works and finds 0 resources")
	case page.Total != nil:
		t.ok(CheckRead, typ, fmt.Sprintf("the search works; the server counts %d", *page.Total))
	default:
		t.ok(CheckRead, typ, "the search works; the server gives no count")
	}
}

func (t *tester) unread(typ cura.ResourceType, offered bool, err error) bool {
	f := asFault(err)
	switch kind := f.Kind; {
	case kind == fault.Scope:
		t.report.Forbidden = append(t.report.Forbidden, typ)
		t.skipped(typ, "forbidden (403)", f.Fix)
	case !offered && (kind == fault.Unsupported || kind == fault.Config):
		t.report.Missing = append(t.report.Missing, typ)
		t.skipped(typ, "the server doesn't offer it", f.Fix)
	case kind == fault.Throttled:
		t.warn(CheckRead, typ, "the server asks to slow down, so this wasn't tried", "Try starter test again later")
	case kind == fault.Auth:
		t.failed(CheckRead, typ, err)
		return false
	default:
		t.failed(CheckRead, typ, err)
	}
	return true
}

// skipped is a warning, but for Patient a failure.
func (t *tester) skipped(typ cura.ResourceType, seen, fix string) {
	if typ == cura.Patient {
		t.fail(CheckRead, typ, seen+": without patients nothing can be pulled", fix)
		return
	}
	t.warn(CheckRead, typ, seen+": this type is switched off, the others go on", fix)
}
