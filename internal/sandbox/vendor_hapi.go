package sandbox

// hapi is HAPI FHIR, a general store.
func hapi() *vendor {
	return &vendor{
		name: "hapi",
		// DOMAIN §0.1: a general FHIR store, searched as a whole; §2, P1. It counts and lists ids, which bisecting a
		// page that fails lives on (DOMAIN §5).
		software: "HAPI FHIR Server", countOnly: true, idsOnly: true,
		// DOMAIN §2: next links stand at the base's root without a type ({base}?_getpages=..), name a search that is
		// kept for a while, and answer 410 once it was let go.
		paging: pagingGetPages,
		writes: writesAll(), // DOMAIN §4, the write matrix
	}
}
