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
