package sandbox

import (
	"crypto/tls"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
)

// WriteFaults are the knobs of what clients write. The shares, 0 to 1, are of the writes that the EHR would take, and sum
// up to 1 at most; which writes they hit depends on the seed, the resource's identifier and how often it has come, so
// that runs repeat. Each write has one trouble at most.
type WriteFaults struct {
	// LatencyMS answers so many milliseconds later, after processing; LatencyBeforeMS processes so much later. Who has gone
	// by then isn't processed.
	LatencyMS       int `json:"latency_ms,omitempty"`
	LatencyBeforeMS int `json:"latency_before_ms,omitempty"`
	// TimeoutAfterShare processes, and never answers.
	TimeoutAfterShare float64 `json:"timeout_after_share,omitempty"`
	// ResetAfterShare processes and resets the connection, ResetBeforeShare only resets it. Of HTTP/2 it is the stream, which
	// other requests have no part in.
	ResetAfterShare  float64 `json:"reset_after_share,omitempty"`
	ResetBeforeShare float64 `json:"reset_before_share,omitempty"`
	// ErrorAfterShare processes and answers 500; ErrorBeforeShare answers 500 or 503, by turns, and doesn't process.
	ErrorAfterShare  float64 `json:"error_after_share,omitempty"`
	ErrorBeforeShare float64 `json:"error_before_share,omitempty"`
	// ThrottleShare answers 429 with Retry-After: 1, and doesn't process.
	ThrottleShare float64 `json:"throttle_share,omitempty"`
	// StuckPatients are ids of patients whose writes are neither processed nor answered.
	StuckPatients []string `json:"stuck_patients,omitempty"`
	// Hold keeps what is written for sign-off: it is answered as ever, but neither found nor read until Server.FileHeld.
	Hold bool `json:"hold,omitempty"`
}

func (f WriteFaults) validate(check func(ok bool, name, want string)) {
	check(f.LatencyMS >= 0, "writes.latency_ms", "0 or more")
	check(f.LatencyBeforeMS >= 0, "writes.latency_before_ms", "0 or more")
	sum := 0.0
	for _, one := range f.shares() {
		check(one.share >= 0 && one.share <= 1, "writes."+one.name, "between 0 and 1")
		sum += one.share
	}
	check(sum <= 1+1e-9, "writes", "shares that sum up to 1 at most") // 0.1 ten times is a little more
	check(!slices.Contains(f.StuckPatients, ""), "writes.stuck_patients", "ids of patients")
}

// trouble is what the knobs do to one write.
type trouble int

const (
	troubleNone trouble = iota
	troubleStuck
	troubleThrottle
	troubleError
	troubleUnavailable
	troubleResetBefore
	troubleTimeoutAfter
	troubleResetAfter
	troubleErrorAfter
)

// writeShare is one of the shares.
type writeShare struct {
	name    string
	share   float64
	trouble trouble
}

func (f WriteFaults) shares() []writeShare {
	return []writeShare{
		{"throttle_share", f.ThrottleShare, troubleThrottle},
		{"error_before_share", f.ErrorBeforeShare, troubleError},
		{"reset_before_share", f.ResetBeforeShare, troubleResetBefore},
		{"timeout_after_share", f.TimeoutAfterShare, troubleTimeoutAfter},
		{"reset_after_share", f.ResetAfterShare, troubleResetAfter},
		{"error_after_share", f.ErrorAfterShare, troubleErrorAfter},
	}
}

// trouble decides about a write.
func (f WriteFaults) trouble(seed uint64, a *arriving) trouble {
	if a.patient != "" && slices.Contains(f.StuckPatients, a.patient) {
		return troubleStuck
	}
	roll := hashOf(strconv.FormatUint(seed, 36)+"/"+a.key, strconv.Itoa(a.attempt))
	at := float64(roll) / math.MaxUint32
	for _, one := range f.shares() {
		if at -= one.share; at >= 0 {
			continue
		}
		if one.trouble == troubleError && (int(roll>>8)+a.attempt)%2 == 0 {
			return troubleUnavailable
		}
		return one.trouble
	}
	return troubleNone
}

// problem is the answer that a trouble gives.
func (t trouble) problem() *problem {
	if t == troubleThrottle {
		return verdict{http.StatusTooManyRequests, "1", true}.problem()
	}
	v := verdict{status: http.StatusInternalServerError}
	if t == troubleUnavailable {
		v = verdict{status: http.StatusServiceUnavailable, retryAfter: "1"}
	}
	return v.problem()
}

// hang never answers: it ends when the client goes, or the sandbox stops.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.stopped:
	}
	panic(http.ErrAbortHandler)
}

// connKey is under what a request carries its connection.
type connKey struct{}

// reset breaks a request off without an answer.
func reset(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok && r.ProtoMajor == 1 {
		if secured, ok := c.(*tls.Conn); ok {
			c = secured.NetConn() // no farewell
		}
		if plain, ok := c.(*net.TCPConn); ok {
			_ = plain.SetLinger(0) // what is closed then is reset; a connection that is gone is as good
		}
		_ = c.Close() // as above
	}
	panic(http.ErrAbortHandler)
}
