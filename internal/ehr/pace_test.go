package ehr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// paceLog lets requests through until it is told to refuse, and remembers how each went.
type paceLog struct {
	mu       sync.Mutex
	waits    int
	outcomes []ehr.Outcome
	refuse   func(request int) error
}

func (p *paceLog) Wait(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits++
	if p.refuse != nil {
		return p.refuse(p.waits)
	}
	return nil
}

func (p *paceLog) Done(o ehr.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outcomes = append(p.outcomes, o)
}

func (p *paceLog) last() ehr.Outcome {
	all := p.all()
	return all[len(all)-1]
}

func (p *paceLog) all() []ehr.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.outcomes)
}

func paced(pace ehr.Pace) func(*ehr.Config) { return func(cfg *ehr.Config) { cfg.Pace = pace } }

// TestPaceSeesEveryRequest counts at the hospital what the pace was asked for.
func TestPaceSeesEveryRequest(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient", refuse(h, "token-2", h.emptySearch))
	h.on("/fhir/Patient/p1", text(http.StatusGone, ""))
	var pace paceLog
	c := h.client(t, paced(&pace))
	_, err := c.Search(t.Context(), ehr.Query{Type: cura.Patient})
	require.NoError(t, err)
	_, err = c.ReadPage(t.Context(), cura.Patient, "p1")
	require.Error(t, err)

	var asked []string
	for _, r := range h.asked("") {
		asked = append(asked, r.URL.Path)
	}
	require.Equal(t, []string{
		"/fhir/.well-known/smart-configuration", "/token", "/fhir/Patient", "/token", "/fhir/Patient", "/fhir/Patient/p1",
	}, asked)
	var statuses []int
	for _, o := range pace.all() {
		require.False(t, o.Err)
		statuses = append(statuses, o.Status)
	}
	require.Equal(t, []int{200, 200, 401, 200, 200, 410}, statuses)

	before := len(h.asked(""))
	c.Test(t.Context(), ehr.TestOptions{Types: []cura.ResourceType{cura.Patient}})
	require.Len(t, pace.all(), len(statuses)+len(h.asked(""))-before, "metadata and the test's searches too")
}

func TestPaceRefuses(t *testing.T) {
	t.Parallel()
	throttled := fault.New("waiting for a token of the bucket", fault.Throttled, "the budget is used up").After(7 * time.Minute)
	cases := map[string]struct {
		at     int // the request that isn't let through: discovery, token, search
		err    error
		kind   fault.Kind
		detail string
	}{
		"discovery": {1, throttled, fault.Throttled, "the budget is used up"},
		"token":     {2, throttled, fault.Throttled, "the budget is used up"},
		"search":    {3, throttled, fault.Throttled, "the budget is used up"},
		"database":  {3, errors.New("select from Garcia"), fault.Unavailable, "the budget of requests can't be asked"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			pace := &paceLog{refuse: func(n int) error {
				if n == test.at {
					return test.err
				}
				return nil
			}}
			c := h.client(t, paced(pace))
			_, err := c.FindPatients(t.Context(), ehr.Person{System: "urn:mrn", Value: "MRN-1"}) // a POST, whose body must be closed
			f := requireFault(t, err, test.kind)
			require.Equal(t, test.detail, f.Detail)
			require.Len(t, h.asked(""), test.at-1, "nothing is sent")
			require.Len(t, pace.all(), test.at-1, "what wasn't let through isn't done")
			if test.kind == fault.Throttled {
				require.Same(t, throttled, err, "unchanged")
			}
		})
	}
}

func TestPaceCancelled(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	ctx, cancel := contextWithCancel(t)
	pace := &paceLog{refuse: func(int) error {
		cancel()
		return ctx.Err()
	}}
	_, err := h.client(t, paced(pace)).Search(ctx, ehr.Query{Type: cura.Patient})
	requireFault(t, err, fault.Transient)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, h.asked(""))
}

func TestPaceOutcomes(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		answer http.HandlerFunc
		want   ehr.Outcome
	}{
		"fine":        {text(http.StatusOK, searchset("")), ehr.Outcome{Status: 200}},
		"in trouble":  {text(http.StatusBadGateway, "<html></html>"), ehr.Outcome{Status: 502}},
		"slow down":   {text(http.StatusTooManyRequests, "", "Retry-After", "9"), ehr.Outcome{Status: 429, RetryAfter: 9 * time.Second}},
		"no answer":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ehr.Outcome{Err: true}},
		"half of one": {halfAnswer, ehr.Outcome{Status: 200, Err: true}},
		"too large":   {text(http.StatusOK, searchset(match("Patient", fmt.Sprintf("%0100000d", 1)))), ehr.Outcome{Status: 200}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Patient", test.answer)
			var pace paceLog
			_, _ = h.client(t, paced(&pace), func(cfg *ehr.Config) { cfg.MaxPage = 50_000 }).Search(t.Context(), ehr.Query{Type: cura.Patient})
			require.Equal(t, test.want, pace.last())
		})
	}
}

// A cancelled request says nothing about the hospital.
func TestPaceOutcomeOfACancelledRequest(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	ctx, cancel := contextWithCancel(t)
	h.on("/fhir/Patient", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	var pace paceLog
	_, err := h.client(t, paced(&pace)).Search(ctx, ehr.Query{Type: cura.Patient})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, ehr.Outcome{}, pace.last())
}

func halfAnswer(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte(`{"resourceType":"Bundle","type":"searchset","entry":[`))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}
