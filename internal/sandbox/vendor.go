package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// vendor is the manners of one vendor's server: what it demands, offers, shows and calls things. The zero value of a
// field is what a general FHIR store does. Each vendor has a file of its own, in which each rule names its fact.
type vendor struct {
	name     string // as in Config.Vendor
	software string // CapabilityStatement.software.name

	// tokenLife is how many seconds an access token lives; 0: defaultTokenLife.
	tokenLife int
	// grants reads what a token request asks for and gives what is granted; nil: parseScopes. registered are the scopes of
	// version 1 that are registered for the client.
	grants func(asked string, registered []string) (scopes []scope, granted string)
	// uncovered is the answer to a token whose scopes don't cover what is asked for; nil: 403 insufficient_scope.
	uncovered func(typ, permission string) *problem

	// demandsOfAll looks at every FHIR request, metadata apart; nil demands nothing.
	demandsOfAll func(r *http.Request) *problem
	// fhirOnly refuses requests that don't accept application/fhir+json by name.
	fhirOnly bool
	// passed are parameters that go on with every next link.
	passed []string

	// offers tells whether one of the catalog's search parameters is offered; nil offers them all.
	offers func(typ, param string) bool
	// spellsLower shows _lastUpdated as _lastupdated in the CapabilityStatement.
	spellsLower bool
	// demands looks at a search that was understood; nil demands nothing.
	demands func(q *query) *problem
	// pageSize gives the rows of a page when _count says nothing, and the most it may say; nil: the general ones.
	pageSize func(typ string) (byDefault, most int)
	// wholeFirstPage tells whether the first page of a search has all of it, whatever _count says; nil: never.
	wholeFirstPage func(q *query) bool
	// ownOrder is the _sort that a search has anyhow; _sort is ignored then.
	ownOrder string
	// nearPatients answers searches for demographics with near matches too, scored, and offers Patient/$match.
	nearPatients bool
	// countOnly and idsOnly tell whether _summary=count and _elements=id are offered.
	countOnly, idsOnly bool

	paging    pagingStyle
	pageDepth int  // the offset past which a next link is refused; 0: none
	noTotal   bool // leaves Bundle.total out

	// hidesVersions leaves meta.versionId and meta.lastUpdated out, and offers no versions.
	hidesVersions bool
	// longIDs makes a part of the ids longer than R4's 64 characters.
	longIDs bool
	// deleted is the status of a deleted resource; 0: 410.
	deleted int
	// note is an OperationOutcome entry at the end of each page; nil: none.
	note func(found bool) obj

	// writes is what it takes from clients, and how; the zero value takes nothing.
	writes writeManners
}

// pagingStyle is how next links are made.
type pagingStyle int

const (
	// pagingToken puts one opaque parameter on the base's root; the results are frozen.
	pagingToken pagingStyle = iota
	// pagingGetPages is HAPI's: the search's id and an offset, on the base's root; the results are frozen.
	pagingGetPages
	// pagingOffset is Medplum's: the search itself with _offset or _cursor; each page is a search of its own.
	pagingOffset
)

// Vendors lists the vendors whose manners the sandbox has, as Config.Vendor names them. "" is a general FHIR store.
func Vendors() []string { return []string{"athena", "epic", "hapi", "medplum", "oracle"} }

// vendorNamed gives the manners of a vendor.
func vendorNamed(name string) (*vendor, error) {
	switch name {
	case "":
		return generic(), nil
	case "athena":
		return athena(), nil
	case "epic":
		return epic(), nil
	case "hapi":
		return hapi(), nil
	case "medplum":
		return medplum(), nil
	case "oracle":
		return oracle(), nil
	default:
		return nil, fmt.Errorf("the sandbox has no vendor of this name: choose one of %s, or none for a general FHIR store",
			strings.Join(Vendors(), ", "))
	}
}

// generic is a general FHIR store that does what R4 says.
func generic() *vendor {
	return &vendor{software: "Cura sandbox EHR", countOnly: true, idsOnly: true, paging: pagingToken, writes: writesAll()}
}

// offered lists the search parameters of a type, sorted.
func (v *vendor) offered(typ string) []string {
	if typ == groupType {
		return nil // read by id only (DOMAIN §2, rosters: its id is not discoverable by API)
	}
	out := slices.DeleteFunc(append(catalog(typ), "_id", "_lastUpdated"), func(name string) bool {
		return v.offers != nil && !v.offers(typ, name)
	})
	slices.Sort(out)
	return out
}

// sizes gives the rows of a page by default and at most.
func (v *vendor) sizes(typ string) (byDefault, most int) {
	if v.pageSize == nil {
		return defaultCount, maxCount
	}
	return v.pageSize(typ)
}

// gone is the status of a deleted resource.
func (v *vendor) gone() int {
	if v.deleted == 0 {
		return http.StatusGone
	}
	return v.deleted
}

// refuse is the answer to a token whose scopes don't cover what is asked for.
func (v *vendor) refuse(typ, permission string) *problem {
	if v.uncovered != nil {
		return v.uncovered(typ, permission)
	}
	return insufficientScope(typ, permission)
}

// demandPatient is what no major EHR does without (DOMAIN §0.1): a clinical type is searched by a patient or an id, a
// Patient by demographics, an identifier or an id. It tells which of both is missing, "" for none.
func demandPatient(q *query, clinical ...string) string {
	switch {
	case q.has("_id"):
		return ""
	case q.typ == "Patient":
		if !q.has("identifier", "family", "given", "birthdate") {
			return "This resource requires demographics, identifier or _id parameter"
		}
	case slices.Contains(catalog(q.typ), "patient") && !q.has(clinical...):
		return "This resource requires patient or _id parameter"
	}
	return ""
}
