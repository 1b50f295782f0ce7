package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

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
	// Untimed are resources ("Type/id") that are served without meta.lastUpdated. A search finds them by it all the same.
	Untimed []string `json:"untimed,omitempty"`
	// Oversize are resources ("Type/id", or a type for its first resource) that are served with a narrative of so many bytes.
	Oversize map[string]int `json:"oversize,omitempty"`

	// TokenLifetimeSeconds is how long an access token lives; 0 means the vendor's own, or 300 (SMART App Launch, Backend
	// Services).
	TokenLifetimeSeconds int `json:"token_lifetime_seconds,omitempty"`
	// RevokedClient makes the token endpoint answer invalid_client, and refuses the tokens given before.
	RevokedClient bool `json:"revoked_client,omitempty"`
	// GrantedScopes, when set, is granted whatever was asked: less, or more, than was asked.
	GrantedScopes string `json:"granted_scopes,omitempty"`
	// RefuseTypes are answered with 403.
	RefuseTypes []string `json:"refuse_types,omitempty"`
	// MissingTypes are absent from the CapabilityStatement and answered with 404.
	MissingTypes []string `json:"missing_types,omitempty"`
	// TokenDiesAfterRequests makes an access token good for so many requests only, whatever its lifetime: it dies in the
	// middle of a chain of pages. 0 means any number.
	TokenDiesAfterRequests int `json:"token_dies_after_requests,omitempty"`

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
	// SkipRows leaves out one row of a search that has more than one page: the first of its second page. The same search,
	// whatever its _count, leaves out nothing when it is made again. Bundle.total counts the row.
	SkipRows bool `json:"skip_rows,omitempty"`
	// DropParams are search parameters that are ignored, and absent from the self link; with DropSilently the self link
	// shows them all the same. What the vendor demands counts as given.
	DropParams   []string `json:"drop_params,omitempty"`
	DropSilently bool     `json:"drop_silently,omitempty"`
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
	// PageDepth is the offset past which a next link answers 400; 0 means the vendor's own: 10,000 for medplum, else none.
	// Pages by _cursor have no depth.
	PageDepth int `json:"page_depth,omitempty"`
	// LateCommitSeconds makes a write to be seen only so much later, by reads and searches alike, and then with the
	// meta.lastUpdated of when it was made, as a transaction does that commits late. LateCommitShare is the share of the
	// resources whose writes are late, 0 to 1, always the same ones; 0 means all. After a restart late writes are seen.
	LateCommitSeconds int     `json:"late_commit_seconds,omitempty"`
	LateCommitShare   float64 `json:"late_commit_share,omitempty"`
	// ClockSkewSeconds shifts the server's clock: the Date header and every meta.lastUpdated.
	ClockSkewSeconds int `json:"clock_skew_seconds,omitempty"`

	// Writes are the knobs of what clients write.
	Writes WriteFaults `json:"writes,omitzero"`

	// Certificate is the one that is shown: "", "expired", "not-yet-valid", "self-signed" (signed by nobody else) or
	// "wrong-host".
	Certificate string `json:"certificate,omitempty"`
	// MaxTLS, when it is "1.1", refuses TLS 1.2 and above.
	MaxTLS string `json:"max_tls,omitempty"`
}

// Throttle says when a FHIR request is refused for being one too many, and how.
type Throttle struct {
	// EveryN throttles every Nth request; 0 none.
	EveryN int `json:"every_n,omitempty"`
	// PerSecond throttles what comes faster; 0 means no limit.
	PerSecond float64 `json:"per_second,omitempty"`
	// PerMinute refuses what comes after so many answered requests in the last sixty seconds; 0 means no limit. It counts
	// every request, those for tokens, metadata and unknown addresses too: what proves a budget.
	PerMinute int `json:"per_minute,omitempty"`
	// Token makes EveryN and PerSecond count and throttle the token endpoint too.
	Token bool `json:"token,omitempty"`
	// Status is that of the answer: 429, which 0 means, or 503.
	Status int `json:"status,omitempty"`
	// RetryAfterSeconds is the value of Retry-After; 0 leaves the header out.
	RetryAfterSeconds int `json:"retry_after_seconds,omitempty"`
	// RetryAfterDate writes Retry-After as an HTTP-date (RFC 9110 §10.2.3).
	RetryAfterDate bool `json:"retry_after_date,omitempty"`
	// RetryAfterRaw is sent as it is instead: an epoch ("1764000000"), "-5", "soon", a date in the past.
	RetryAfterRaw string `json:"retry_after_raw,omitempty"`
}

// verdict is what a request gets that is one too many.
func (t Throttle) verdict(now time.Time) verdict {
	after := cmp.Or(t.RetryAfterRaw, retryAfter(t.RetryAfterSeconds, t.RetryAfterDate, now))
	return verdict{cmp.Or(t.Status, http.StatusTooManyRequests), after, true}
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

// maxPerMinute bounds what Throttle.PerMinute must remember.
const maxPerMinute = 1_000_000

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
		"throttle.per_minute": f.Throttle.PerMinute, "token_dies_after_requests": f.TokenDiesAfterRequests,
		"page_expires_after_uses": f.PageExpiresAfterUses, "page_expires_after_seconds": f.PageExpiresAfterSeconds,
		"page_depth": f.PageDepth, "late_commit_seconds": f.LateCommitSeconds,
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
	check(f.Throttle.PerMinute <= maxPerMinute, "throttle.per_minute", "at most 1000000")
	check(slices.Contains([]int{0, http.StatusTooManyRequests, http.StatusServiceUnavailable}, f.Throttle.Status), "throttle.status", "429 or 503")
	check(!strings.ContainsFunc(f.Throttle.RetryAfterRaw, unicode.IsControl), "throttle.retry_after_raw", "one line of text")
	check(share(f.LateCommitShare), "late_commit_share", "between 0 and 1")
	check(f.LateCommitSeconds > 0 || f.LateCommitShare == 0, "late_commit_share", "set together with late_commit_seconds")
	check(!slices.Contains(f.DropParams, ""), "drop_params", "names of search parameters")
	check(len(f.DropParams) > 0 || !f.DropSilently, "drop_silently", "set together with drop_params")
	for knob, resources := range map[string][]string{"poison": f.Poison, "untimed": f.Untimed} {
		for _, r := range resources {
			typ, id, _ := strings.Cut(r, "/")
			check(typ != "" && id != "", knob, "resources such as Observation/42")
		}
	}
	check(slices.Contains([]string{"", certExpired, certNotYetValid, certSelfSigned, certWrongHost}, f.Certificate),
		"certificate", `"", "expired", "not-yet-valid", "self-signed" or "wrong-host"`)
	check(f.MaxTLS == "" || f.MaxTLS == "1.1", "max_tls", `"" or "1.1"`)
	f.Writes.validate(check)
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

// lateBy is how long a write of the resource stays unseen.
func (f Faults) lateBy(typ, id string) time.Duration {
	if f.LateCommitShare > 0 && !breaks(f.LateCommitShare, id, typ) {
		return 0
	}
	return time.Duration(f.LateCommitSeconds) * time.Second
}

// breaks tells whether a resource is one of a share that are treated in another way. It depends on the resource alone,
// so that two reads agree.
func breaks(share float64, typ, id string) bool {
	return float64(hashOf(typ, id)) < share*math.MaxUint32
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
	minute  []time.Time // when requests were admitted, the last Throttle.PerMinute of them
	dice    *rand.Rand
	seed    uint64
}

func newFaultBoard(f Faults, seed uint64) *faultBoard {
	b := &faultBoard{dice: seeded(seed, "faults"), seed: seed}
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
	b.faults, b.seen, b.minute = f, 0, nil
	b.limiter = rate.NewLimiter(limit, max(1, int(f.Throttle.PerSecond)))
}

// verdict is what the knobs decide about one request; status 0 lets it through.
type verdict struct {
	status     int
	retryAfter string
	throttled  bool
}

// admit counts a request and tells whether it is within Throttle.PerMinute.
func (b *faultBoard) admit(now time.Time) verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := b.faults.Throttle.PerMinute
	if limit == 0 {
		return verdict{}
	}
	if len(b.minute) == limit && now.Sub(b.minute[0]) < time.Minute {
		return b.faults.Throttle.verdict(now)
	}
	if len(b.minute) == limit {
		b.minute = b.minute[1:]
	}
	b.minute = append(b.minute, now)
	return verdict{}
}

// judge decides about a request. what is a resource type, "metadata", "smart-configuration", "token" or "".
func (b *faultBoard) judge(what string, now time.Time) verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.faults.FailNext {
		n := &b.faults.FailNext[i]
		if n.Count > 0 && (n.Type == what || n.Type == "" && what != kindToken) {
			n.Count--
			return verdict{n.Status, retryAfter(n.RetryAfterSeconds, false, now), n.Status == http.StatusTooManyRequests}
		}
	}
	t := b.faults.Throttle
	if what != kindToken || t.Token {
		b.seen++
		if t.EveryN > 0 && b.seen%t.EveryN == 0 || t.PerSecond > 0 && !b.limiter.AllowN(now, 1) {
			return t.verdict(now)
		}
	}
	if what != kindToken && b.faults.ErrorRate > 0 && b.dice.Float64() < b.faults.ErrorRate {
		return verdict{status: http.StatusInternalServerError}
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
