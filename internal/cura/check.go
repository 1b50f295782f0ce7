package cura

// Verdict is the outcome of one check.
type Verdict string

// The verdicts.
const (
	VerdictOK      Verdict = "ok"
	VerdictWarning Verdict = "warning"
	VerdictFailed  Verdict = "failed"
)

// Check is one thing that the endpoint test looked at. It holds no PHI and no secret.
type Check struct {
	// Name is a stable id in lower case, such as "dns", "tls", "metadata", "token", "read".
	Name string `json:"name"`
	// Type is set for a check of one resource type.
	Type    ResourceType `json:"type,omitempty"`
	Verdict Verdict      `json:"verdict"`
	// Seen is what was found, in words.
	Seen string `json:"seen"`
	// Fix is one sentence that says what to do; empty for ok.
	Fix string `json:"fix,omitempty"`
}

// EndpointReport is the result of an endpoint test.
type EndpointReport struct {
	Checks []Check `json:"checks"`
	// Forbidden lists the types that answered 403: they are switched off and the rest goes on.
	Forbidden []ResourceType `json:"forbidden,omitempty"`
	// Missing lists the types that the server doesn't offer: there is nothing to pull of them.
	Missing []ResourceType `json:"missing,omitempty"`
	// Offered lists the types that the server's CapabilityStatement offers and Cura doesn't pull.
	Offered []string `json:"offered,omitempty"`
	// Strategies say how each type is read, as the test found it. A type that couldn't be tried, or that there is nothing to
	// read of, isn't among them.
	Strategies []StrategyChoice `json:"strategies,omitempty"`
	// Deliveries say for each kind that is to be delivered by FHIR whether the server takes it. They are empty where the test
	// ended before the token's scopes were known.
	Deliveries []DeliveryCheck `json:"deliveries,omitempty"`
}

// DeliveryCheck is what the endpoint test found of one kind that is to be delivered by FHIR.
type DeliveryCheck struct {
	Kind ArtefactKind `json:"kind"`
	// Resource is the FHIR type that it is written as; empty where the profile knows none.
	Resource string `json:"resource,omitempty"`
	// OK says that the profile, the server's metadata and the granted scopes all allow it.
	OK bool `json:"ok"`
	// Why says what was found, in words; Fix what to do where it isn't OK.
	Why string `json:"why"`
	Fix string `json:"fix,omitempty"`
	// ConditionalCreate says that If-None-Exist by identifier may be counted on; Update that PUT may.
	ConditionalCreate bool `json:"conditional_create,omitempty"`
	Update            bool `json:"update,omitempty"`
}

// Verdict is the worst verdict of all the checks.
func (r EndpointReport) Verdict() Verdict {
	worst := VerdictOK
	for _, c := range r.Checks {
		switch c.Verdict {
		case VerdictFailed:
			return VerdictFailed
		case VerdictWarning:
			worst = VerdictWarning
		case VerdictOK:
		}
	}
	return worst
}
