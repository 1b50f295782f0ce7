package cura

import (
	"fmt"
	"time"
)

// Thresholds are what a monitored connection may not cross. A zero field is replaced by its default.
type Thresholds struct {
	// FailedSyncs is how many syncs in a row may end incomplete; default 2, so that the third is one too many.
	FailedSyncs int `json:"failed_syncs"`
	// QuarantineRate is the share of new versions that may be quarantined; default 0.05. It is judged from
	// QuarantineSample new versions on; default 100.
	QuarantineRate   float64 `json:"quarantine_rate"`
	QuarantineSample int     `json:"quarantine_sample"`
	// Lag is how long ago the last complete sync may have ended; default four intervals, at least a minute.
	Lag time.Duration `json:"lag"`
	// AuthFailures is how many syncs may have been refused for their credentials; default 0.
	AuthFailures int `json:"auth_failures"`
}

// WithDefaults fills what is zero, for a schedule of that interval.
func (t Thresholds) WithDefaults(interval time.Duration) Thresholds {
	if t.FailedSyncs == 0 {
		t.FailedSyncs = 2
	}
	if t.QuarantineRate == 0 {
		t.QuarantineRate = 0.05
	}
	if t.QuarantineSample == 0 {
		t.QuarantineSample = 100
	}
	if t.Lag == 0 {
		t.Lag = max(4*interval, time.Minute)
	}
	return t
}

// SyncFact is what monitoring knows of one sync that has ended.
type SyncFact struct {
	EndedAt     time.Time
	Complete    bool
	AuthFailed  bool
	Landed      int
	Quarantined int
}

// Evaluation is how a monitoring window stands at one moment.
type Evaluation struct {
	At           time.Time `json:"at"`
	Syncs        int       `json:"syncs"`
	FailedSyncs  int       `json:"failed_syncs"`
	FailedInARow int       `json:"failed_in_a_row"`
	Landed       int       `json:"landed"`
	Quarantined  int       `json:"quarantined"`
	AuthFailures int       `json:"auth_failures"`
	// LagSeconds is how long ago the last complete sync ended.
	LagSeconds float64 `json:"lag_seconds"`
	// Breaches are the thresholds crossed, in words; none: healthy.
	Breaches []string `json:"breaches,omitempty"`
	// AuthBreach says that credentials are among the breaches: then they must be mended first.
	AuthBreach bool `json:"auth_breach,omitempty"`
}

// Healthy reports whether no threshold is crossed.
func (e Evaluation) Healthy() bool { return len(e.Breaches) == 0 }

// Judge holds the syncs of a window, oldest first, against thresholds.
func Judge(began, now time.Time, syncs []SyncFact, t Thresholds) Evaluation {
	e := Evaluation{At: now, Syncs: len(syncs)}
	lastComplete := began
	for _, s := range syncs {
		e.Landed += s.Landed
		e.Quarantined += s.Quarantined
		if s.AuthFailed {
			e.AuthFailures++
		}
		if s.Complete {
			e.FailedInARow = 0
			lastComplete = s.EndedAt
			continue
		}
		e.FailedSyncs++
		e.FailedInARow++
	}
	lag := max(now.Sub(lastComplete), 0)
	e.LagSeconds = float64(lag.Milliseconds()) / 1000
	breach := func(format string, args ...any) { e.Breaches = append(e.Breaches, fmt.Sprintf(format, args...)) }
	if e.AuthFailures > t.AuthFailures {
		e.AuthBreach = true
		breach("the EHR refused the credentials in %d syncs; allowed: %d", e.AuthFailures, t.AuthFailures)
	}
	if e.FailedInARow > t.FailedSyncs {
		breach("%d syncs in a row ended incomplete; allowed: %d", e.FailedInARow, t.FailedSyncs)
	}
	if e.Landed >= t.QuarantineSample && float64(e.Quarantined) > t.QuarantineRate*float64(e.Landed) {
		breach("%d of %d new versions were quarantined; allowed: %.1f %%", e.Quarantined, e.Landed, 100*t.QuarantineRate)
	}
	if lag > t.Lag {
		breach("the last complete sync ended %s ago; allowed: %s", lag.Round(time.Second), t.Lag)
	}
	return e
}
