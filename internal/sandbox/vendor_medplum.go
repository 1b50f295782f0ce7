package sandbox

// medplum is Medplum, a general store.
func medplum() *vendor {
	return &vendor{
		name: "medplum",
		// DOMAIN §0.1: a general FHIR store, searched as a whole; §2, P1.
		software: "Medplum", countOnly: true, idsOnly: true,
		// DOMAIN §2: at most 1000 a page.
		pageSize: func(string) (byDefault, most int) { return 20, 1000 },
		// DOMAIN §2: _offset up to 10,000, else _cursor in the order of _lastUpdated. Both are searches of their own: what
		// changes in between moves rows.
		paging: pagingOffset, pageDepth: 10_000,
		// DOMAIN §2: Bundle.total may be absent. A count is had by _summary=count.
		noTotal: true,
		writes:  writesAll(), // DOMAIN §4, the write matrix
	}
}
