package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Faults are the knobs that make the sandbox behave like a difficult EHR. The zero value is a well-behaved one.
// The JSON form is the one of the control endpoint.
type Faults struct {
	// LatencyMS delays every answer by so many milliseconds.
	LatencyMS int `json:"latency_ms,omitempty"`
	// Throttle answers some requests with 429.
	Throttle Throttle `json:"throttle,omitzero"`
	// ErrorRate is the share of FHIR requests, 0 to 1, that are answered with 500.
	ErrorRate float64 `json:"error_rate,omitempty"`
	// FailNext are counted failures; each is used up as it happens.
	FailNext []FailNext `json:"fail_next,omitempty"`

	// Malformed is the share, 0 to 1, of a type's resources that are served invalid: a required element is missing or a
	// primitive has the wrong form. The key "*" stands for every type. It is always the same resources.
	Malformed map[string]float64 `json:"malformed,omitempty"`
	// Poison are resources ("Type/id") whose presence turns the page or the read into a 500 (DOMAIN §5, Cerner).
	Poison []string `json:"poison,omitempty"`
	// Oversize are resources ("Type/id", or a type for its first resource) that are served with a narrative of so many bytes.
	Oversize map[string]int `json:"oversize,omitempty"`

	// TokenLifetimeSeconds is how long an access token lives; 0 means 300 (SMART App Launch, Backend Services).
	TokenLifetimeSeconds int `json:"token_lifetime_seconds,omitempty"`
	// RevokedClient makes the token endpoint answer invalid_client, and refuses the tokens given before.
	RevokedClient bool `json:"revoked_client,omitempty"`
	// GrantedScopes, when set, is granted whatever was asked: less, or more, than was asked.
	GrantedScopes string `json:"granted_scopes,omitempty"`
	// RefuseTypes are answered with 403.
	RefuseTypes []string `json:"refuse_types,omitempty"`
	// MissingTypes are absent from the CapabilityStatement and answered with 404.
	MissingTypes []string `json:"missing_types,omitempty"`
	// RequiredSearch makes searches demand parameters as a vendor does: "", "epic" or "oracle" (DOMAIN §0, §2).
	RequiredSearch string `json:"required_search,omitempty"`

	// HTML answers every FHIR request with 200 and a web page, as a login portal or firewall does.
	HTML bool `json:"html,omitempty"`
	// STU3 makes the CapabilityStatement say fhirVersion 3.0.2.
	STU3 bool `json:"stu3,omitempty"`
	// NoTotal leaves Bundle.total out.
	NoTotal bool `json:"no_total,omitempty"`
	// EmptyPage puts an empty page with a next link before the first one.
	EmptyPage bool `json:"empty_page,omitempty"`
	// DuplicateRows repeats the last resource of each page as the first of the next.
	DuplicateRows bool `json:"duplicate_rows,omitempty"`
	// NextLoop makes every next link lead to the same page, without end.
	NextLoop bool `json:"next_loop,omitempty"`
	// NextOtherHost is the origin ("https://other.example") that next links lead to.
	NextOtherHost string `json:"next_other_host,omitempty"`
	// RelativeNext makes next links relative.
	RelativeNext bool `json:"relative_next,omitempty"`
	// PageExpiresAfterUses and PageExpiresAfterSeconds make a next link answer 410 after so many uses or seconds.
	// 0 means any number of uses and 600 seconds.
	PageExpiresAfterUses    int `json:"page_expires_after_uses,omitempty"`
	PageExpiresAfterSeconds int `json:"page_expires_after_seconds,omitempty"`
	// ClockSkewSeconds shifts the server's clock: the Date header and every meta.lastUpdated.
	ClockSkewSeconds int `json:"clock_skew_seconds,omitempty"`

	// Certificate is the one that is shown: "", "expired", "not-yet-valid", "self-signed" (signed by nobody else) or
	// "wrong-host".
	Certificate string `json:"certificate,omitempty"`
	// MaxTLS, when it is "1.1", refuses TLS 1.2 and above.
	MaxTLS string `json:"max_tls,omitempty"`
}

// Throttle says when a FHIR request is answered with 429 and what Retry-After says.
type Throttle struct {
	// EveryN throttles every Nth request; 0 none.
	EveryN int `json:"every_n,omitempty"`
	// PerSecond throttles what comes faster; 0 means no limit.
	PerSecond float64 `json:"per_second,omitempty"`
	// RetryAfterSeconds is the value of Retry-After; 0 leaves the header out.
	RetryAfterSeconds int `json:"retry_after_seconds,omitempty"`
	// RetryAfterDate writes Retry-After as an HTTP-date (RFC 9110 §10.2.3).
	RetryAfterDate bool `json:"retry_after_date,omitempty"`
}

// FailNext makes the next Count requests fail with Status.
type FailNext struct {
	Count  int `json:"count"`
	Status int `json:"status"`
	// Type limits it to requests for one resource type, or to "metadata", "smart-configuration" or "token". "" means
	// every FHIR request, the token endpoint apart.
	Type string `json:"type,omitempty"`
	// RetryAfterSeconds is the value of Retry-After; 0 leaves the header out.
	RetryAfterSeconds int `json:"retry_after_seconds,omitempty"`
}

// The certificates of Faults.Certificate.
const (
	certExpired     = "expired"
	certNotYetValid = "not-yet-valid"
	certSelfSigned  = "self-signed"
	certWrongHost   = "wrong-host"
)

// The modes of Faults.RequiredSearch.
const (
	modeEpic   = "epic"
	modeOracle = "oracle"
)

// Validate tells which knob has a value that means nothing.
func (f Faults) Validate() error {
	var errs []error
	check := func(ok bool, name, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s must be %s", name, want))
		}
	}
	for name, n := range map[string]int{
		"latency_ms": f.LatencyMS, "throttle.every_n": f.Throttle.EveryN,
		"throttle.retry_after_seconds": f.Throttle.RetryAfterSeconds, "token_lifetime_seconds": f.TokenLifetimeSeconds,
		"page_expires_after_uses": f.PageExpiresAfterUses, "page_expires_after_seconds": f.PageExpiresAfterSeconds,
	} {
		check(n >= 0, name, "0 or more")
	}
	share := func(x float64) bool { return x >= 0 && x <= 1 }
	check(share(f.ErrorRate), "error_rate", "between 0 and 1")
	check(f.Throttle.PerSecond >= 0, "throttle.per_second", "0 or more")
	for _, x := range f.Malformed {
		check(share(x), "malformed", "shares between 0 and 1")
	}
	for _, n := range f.Oversize {
		check(n > 0 && n <= 1<<30, "oversize", "between 1 byte and 1 GiB")
	}
	for _, n := range f.FailNext {
		check(n.Count >= 0 && n.Status >= 400 && n.Status <= 599, "fail_next", "a count of 0 or more and a status from 400 to 599")
	}
	check(slices.Contains([]string{"", modeEpic, modeOracle}, f.RequiredSearch), "required_search", `"", "epic" or "oracle"`)
	check(slices.Contains([]string{"", certExpired, certNotYetValid, certSelfSigned, certWrongHost}, f.Certificate),
		"certificate", `"", "expired", "not-yet-valid", "self-signed" or "wrong-host"`)
	check(f.MaxTLS == "" || f.MaxTLS == "1.1", "max_tls", `"" or "1.1"`)
	if f.NextOtherHost != "" {
		u, err := url.Parse(f.NextOtherHost)
		check(err == nil && u.Scheme != "" && u.Host != "", "next_other_host", "an origin such as https://other.example")
	}
	return errors.Join(errs...)
}

func (f Faults) skew() time.Duration { return time.Duration(f.ClockSkewSeconds) * time.Second }

// share is the part of a type's resources that comes out invalid.
func (f Faults) share(typ string) float64 {
	if x, ok := f.Malformed[typ]; ok {
		return x
	}
	return f.Malformed["*"]
}

// breaks tells whether a resource is one of those that are served invalid. It depends on the resource alone, so that
// two reads agree.
func (f Faults) breaks(typ, id string) bool {
	share := f.share(typ)
	return share > 0 && float64(hashOf(typ, id)) < share*math.MaxUint32
}

func hashOf(typ, id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(typ + "/" + id)) // a hash never fails to write
	// FNV mixes the last bytes poorly, and ids often differ in them only.
	x := h.Sum32()
	x ^= x >> 16
	x *= 0x85ebca6b
	x ^= x >> 13
	x *= 0xc2b2ae35
	return x ^ x>>16
}

// faultBoard holds the knobs and what they count. It is safe for concurrent use.
type faultBoard struct {
	mu      sync.Mutex
	faults  Faults
	seen    int // FHIR requests since the knobs were last set, for Throttle.EveryN
	limiter *rate.Limiter
	dice    *rand.Rand
}

func newFaultBoard(f Faults, seed uint64) *faultBoard {
	b := &faultBoard{dice: seeded(seed, "faults")}
	b.put(f)
	return b
}

func (b *faultBoard) get() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.faults
	f.FailNext = slices.Clone(f.FailNext)
	return f
}

func (b *faultBoard) put(f Faults) {
	f.FailNext = slices.Clone(f.FailNext)
	f.Malformed, f.Oversize = maps.Clone(f.Malformed), maps.Clone(f.Oversize)
	limit := rate.Inf
	if f.Throttle.PerSecond > 0 {
		limit = rate.Limit(f.Throttle.PerSecond)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults, b.seen = f, 0
	b.limiter = rate.NewLimiter(limit, max(1, int(f.Throttle.PerSecond)))
}

// verdict is what the knobs decide about one request; status 0 lets it through.
type verdict struct {
	status     int
	retryAfter string
}

// judge decides about a request. what is a resource type, "metadata", "smart-configuration", "token" or "".
func (b *faultBoard) judge(what string, now time.Time) verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.faults.FailNext {
		n := &b.faults.FailNext[i]
		if n.Count > 0 && (n.Type == what || n.Type == "" && what != kindToken) {
			n.Count--
			return verdict{n.Status, retryAfter(n.RetryAfterSeconds, false, now)}
		}
	}
	if what == kindToken {
		return verdict{}
	}
	t := b.faults.Throttle
	b.seen++
	if t.EveryN > 0 && b.seen%t.EveryN == 0 || t.PerSecond > 0 && !b.limiter.AllowN(now, 1) {
		return verdict{429, retryAfter(t.RetryAfterSeconds, t.RetryAfterDate, now)}
	}
	if b.faults.ErrorRate > 0 && b.dice.Float64() < b.faults.ErrorRate {
		return verdict{500, ""}
	}
	return verdict{}
}

// merge changes the knobs that a JSON merge patch names (RFC 7396) and gives the outcome.
func (f Faults) merge(patch []byte) (Faults, error) {
	have, err := json.Marshal(f)
	if err != nil {
		return f, fmt.Errorf("writing the knobs: %w", err)
	}
	var target, change map[string]any
	if err := json.Unmarshal(have, &target); err != nil {
		return f, fmt.Errorf("reading the knobs: %w", err)
	}
	if err := json.Unmarshal(patch, &change); err != nil {
		return f, fmt.Errorf("reading the patch: %w", err)
	}
	mergePatch(target, change)
	merged, err := json.Marshal(target)
	if err != nil {
		return f, fmt.Errorf("writing the knobs: %w", err)
	}
	return parseFaults(merged)
}

func mergePatch(target, patch map[string]any) {
	for k, v := range patch {
		inner, isObject := v.(map[string]any)
		switch {
		case v == nil:
			delete(target, k)
		case isObject:
			nested, ok := target[k].(map[string]any)
			if !ok {
				nested = map[string]any{}
			}
			mergePatch(nested, inner)
			target[k] = nested
		default:
			target[k] = v
		}
	}
}
