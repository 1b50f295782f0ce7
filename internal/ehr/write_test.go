package ehr_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// note is what the tests write; Garcia must not be seen in any error.
const note = `{"resourceType":"DocumentReference","description":"Garcia has a cough"}`

const notes = "/fhir/DocumentReference"

// inTime is a create with a deadline that no test reaches.
func inTime() ehr.Request {
	return ehr.Request{Type: "DocumentReference", Body: []byte(note), Deadline: time.Now().Add(time.Hour)}
}

// send prepares and sends.
func send(t *testing.T, c *ehr.Client, r ehr.Request) (ehr.Receipt, error) {
	t.Helper()
	s, err := c.Prepare(t.Context())
	require.NoError(t, err)
	defer s.Close()
	return s.Send(t.Context(), r)
}

// requireWriteFault checks a fault of Send, and that it holds nothing of the note, of ids and of the server's words.
func requireWriteFault(t *testing.T, err error, kind fault.Kind, maybe bool) fault.Error {
	t.Helper()
	f := requireFault(t, err, kind)
	require.Equal(t, maybe, ehr.MaybeProcessed(err), err)
	for _, phi := range []string{"Garcia", "cough", "n-17", "CURA-1", "token-"} {
		require.NotContains(t, err.Error(), phi)
	}
	return f
}

func created(w http.ResponseWriter, r *http.Request) {
	text(http.StatusCreated, "", "Location", "DocumentReference/n-17/_history/1", "ETag", `W/"1"`)(w, r)
}

func TestSendCreates(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	var posted bodies
	h.on(notes, posted.then(created))
	c := h.client(t)
	before := time.Now()
	r := inTime()
	r.IfNoneExist = ehr.ByIdentifier("https://cura.example/artefact", "CURA-1.1")
	got, err := send(t, c, r)
	require.NoError(t, err)
	require.WithinRange(t, got.At, before, time.Now())
	got.At = time.Time{}
	require.Equal(t, ehr.Receipt{Type: "DocumentReference", ID: "n-17", Version: "1", ETag: `W/"1"`, Status: 201}, got)

	require.Equal(t, []string{"application/fhir+json " + note}, posted.got)
	sent := h.asked(notes)[0]
	require.Equal(t, http.MethodPost, sent.Method)
	require.Equal(t, "Bearer token-1", sent.Header.Get("Authorization"))
	require.Equal(t, "return=minimal", sent.Header.Get("Prefer"))
	require.Equal(t, "application/fhir+json", sent.Header.Get("Accept"))
	require.Equal(t, "cura-ehr-sync", sent.Header.Get("User-Agent"))
	require.NotEmpty(t, sent.Header.Get("X-Request-Id"))
	require.Equal(t, "identifier=https%3A%2F%2Fcura.example%2Fartefact%7CCURA-1.1", sent.Header.Get("If-None-Exist"))
	require.Empty(t, sent.URL.RawQuery)
	require.Equal(t, int64(len(note)), sent.ContentLength)
	require.NotContains(t, sent.Header, "Idempotency-Key", "net/http would send it again")
}

func TestSendUpdates(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on(notes+"/n-17", text(http.StatusOK, "", "ETag", `W/"4"`))
	r := inTime()
	r.ID, r.IfMatch = "n-17", `W/"3"`
	got, err := send(t, h.client(t), r)
	require.NoError(t, err)
	got.At = time.Time{}
	require.Equal(t, ehr.Receipt{Type: "DocumentReference", ID: "n-17", Version: "4", ETag: `W/"4"`, Status: 200}, got)
	sent := h.asked(notes + "/n-17")[0]
	require.Equal(t, http.MethodPut, sent.Method)
	require.Equal(t, `W/"3"`, sent.Header.Get("If-Match"))
}

func TestSendRefusesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	c := h.client(t)
	cases := map[string]func(*ehr.Request){
		"type":                     func(r *ehr.Request) { r.Type = "../Patient" },
		"id":                       func(r *ehr.Request) { r.ID = "n-17/_history" },
		"no body":                  func(r *ehr.Request) { r.Body = nil },
		"no deadline":              func(r *ehr.Request) { r.Deadline = time.Time{} },
		"a deadline by wall clock": func(r *ehr.Request) { r.Deadline = r.Deadline.Round(0) },
		"If-Match of a create":     func(r *ehr.Request) { r.IfMatch = `W/"1"` },
		"If-None-Exist of an update": func(r *ehr.Request) {
			r.ID, r.IfNoneExist = "n-17", "identifier=CURA-1"
		},
		"a header within a header": func(r *ehr.Request) { r.IfNoneExist = "identifier=CURA-1\r\nX: y" },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := inTime()
			change(&r)
			_, err := send(t, c, r)
			requireWriteFault(t, err, fault.Config, false)
			require.Empty(t, h.asked(notes))
		})
	}
}

func TestSendingSendsOnce(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on(notes, created)
	var pace paceLog
	s, err := h.client(t, paced(&pace)).Prepare(t.Context())
	require.NoError(t, err)
	_, err = s.Send(t.Context(), inTime())
	require.NoError(t, err)
	_, err = s.Send(t.Context(), inTime())
	requireWriteFault(t, err, fault.Config, false)
	s.Close()
	require.Len(t, h.asked(notes), 1)
	require.Len(t, pace.all(), 3, "discovery, the token and one write")
}

// TestSendRenewsTheTokenOnce: 401 is no outcome; the same body goes once more.
func TestSendRenewsTheTokenOnce(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		accepted string
		posts    int
		fine     bool
	}{
		"the token has died":  {"token-2", 2, true},
		"the client has died": {"none", 2, false},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			var posted bodies
			h.on(notes, posted.then(refuse(h, test.accepted, created)))
			var pace paceLog
			_, err := send(t, h.client(t, paced(&pace)), inTime())
			if test.fine {
				require.NoError(t, err)
			} else {
				requireWriteFault(t, err, fault.Auth, false)
			}
			require.Len(t, h.asked("/token"), 2)
			require.Len(t, posted.got, test.posts)
			for _, body := range posted.got {
				require.Equal(t, "application/fhir+json "+note, body)
			}
			var statuses []int
			for _, o := range pace.all() {
				statuses = append(statuses, o.Status)
			}
			last := 401
			if test.fine {
				last = 201
			}
			require.Equal(t, []int{200, 200, 401, 200, last}, statuses, "each has its turn, and gives it back")
			require.Equal(t, 5, pace.waits)
		})
	}
}

// A token that comes too late is of no use: the second attempt is fenced like the first.
func TestSendRenewsNoTokenAfterTheDeadline(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on(notes, refuse(h, "token-2", created))
	c := h.client(t)
	s, err := c.Prepare(t.Context())
	require.NoError(t, err)
	h.on("/token", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices that the client has gone only once it has read all
		<-r.Context().Done()
	})
	r := inTime()
	r.Deadline = time.Now().Add(300 * time.Millisecond)
	_, err = s.Send(t.Context(), r)
	requireWriteFault(t, err, fault.Transient, false)
	require.ErrorIs(t, err, ehr.ErrPastDeadline)
	require.LessOrEqual(t, len(h.asked(notes)), 1)
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	throttled := fault.New("waiting for a token of the bucket", fault.Throttled, "the budget is used up").After(7 * time.Minute)
	h := newHospital(t)
	pace := &paceLog{refuse: func(n int) error {
		if n == 3 {
			return throttled
		}
		return nil
	}}
	c := h.client(t, paced(pace))
	_, err := c.Prepare(t.Context())
	f := requireWriteFault(t, err, fault.Throttled, false)
	require.Equal(t, 7*time.Minute, f.RetryAfter)
	require.ErrorIs(t, err, throttled)
	require.Len(t, pace.all(), 2, "discovery and the token; what wasn't let through isn't done")

	s, err := c.Prepare(t.Context())
	require.NoError(t, err)
	require.Len(t, pace.all(), 2, "the turn is held")
	s.Close()
	s.Close()
	require.Len(t, pace.all(), 3, "and given back, once")
	require.Equal(t, ehr.Outcome{}, pace.last())
	_, err = s.Send(t.Context(), inTime())
	requireWriteFault(t, err, fault.Config, false)
	require.Empty(t, h.asked(notes))

	h.on("/token", text(http.StatusUnauthorized, `{"error":"invalid_client"}`))
	_, err = h.client(t).Prepare(t.Context())
	requireWriteFault(t, err, fault.Auth, false)
}

func TestPaceOutcomesOfWrites(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		answer http.HandlerFunc
		want   ehr.Outcome
	}{
		"fine":      {created, ehr.Outcome{Status: 201}},
		"slow down": {text(429, "", "Retry-After", "9"), ehr.Outcome{Status: 429, RetryAfter: 9 * time.Second}},
		"no answer": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ehr.Outcome{Err: true}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on(notes, test.answer)
			var pace paceLog
			_, _ = send(t, h.client(t, paced(&pace)), inTime())
			require.Equal(t, test.want, pace.last())
			require.Len(t, pace.all(), 3)
		})
	}
	t.Run("too late", func(t *testing.T) {
		t.Parallel()
		h := newHospital(t)
		var pace paceLog
		r := inTime()
		r.Deadline = time.Now()
		_, _ = send(t, h.client(t, paced(&pace)), r)
		require.Equal(t, ehr.Outcome{}, pace.last(), "that says nothing about the hospital")
	})
}

// TestWritesFollowNoRedirect: neither token nor content goes anywhere else.
func TestWritesFollowNoRedirect(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			var elsewhere atomic.Int32
			other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
			t.Cleanup(other.Close)
			h := newHospital(t)
			h.on(notes, text(status, "", "Location", other.URL+notes))
			_, err := send(t, h.client(t), inTime())
			requireWriteFault(t, err, fault.Protocol, true)
			require.Zero(t, elsewhere.Load())
			require.Len(t, h.asked(notes), 1)
		})
	}
}

// TestWritesAreHTTP1: on a connection of HTTP/2 a deadline couldn't be one write's alone.
func TestWritesAreHTTP1(t *testing.T) {
	t.Parallel()
	h := newHospitalOver(t, "HTTP/2.0")
	h.on(notes, created)
	c := h.client(t)
	_, err := send(t, c, inTime())
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1", h.asked(notes)[0].Proto)
	require.Equal(t, "HTTP/2.0", h.asked("/token")[0].Proto)
}
