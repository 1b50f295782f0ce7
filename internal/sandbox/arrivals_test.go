package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every request that wants something written is logged, whatever became of it.
func TestArrivals(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now, Faults: Faults{ClockSkewSeconds: 3600}, DataDir: folder(t, map[string]string{
		"a": patientA + `{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"}}`,
	})})
	w := writerTo(t, s)
	target := w.post("DocumentReference", w.note("n1"), "User-Agent", "worker-7").written(t)
	_, id, _ := strings.Cut(target, "/")
	note := w.note("n1", having("id", `"`+id+`"`))
	w.do(http.MethodPut, "/"+target, note)
	w.do(http.MethodPut, "/"+target, note, "If-Match", `W/"1"`)
	w.post("Consent", w.consent(lacking("scope")))
	w.post("DocumentReference", w.note("n2"), "Authorization", "Bearer made-up")
	w.post("Patient", []byte(patientA))
	w.post("", []byte(`{"resourceType":"Bundle","type":"transaction"}`))
	w.post("DocumentReference", []byte("{torn"))
	knobs(t, s, Faults{FailNext: []FailNext{{Count: 1, Status: 503}}})
	w.post("DocumentReference", w.note("n3"))
	w.get("/DocumentReference/" + id) // a look-up is none

	type seen struct {
		method, typ, patient, identifier, id string
		status                               int
		processed                            bool
	}
	var got []seen
	for _, a := range s.Arrivals() {
		require.Equal(t, clock.now(), a.At, "by the clock as it is")
		require.Equal(t, clock.now(), a.Done)
		require.NotZero(t, a.Bytes)
		require.Contains(t, a.Worker, "127.0.0.1:")
		got = append(got, seen{a.Method, a.Type, a.Patient, a.Identifier, a.ID, a.Status, a.Processed})
	}
	require.Equal(t, []seen{
		{"POST", "DocumentReference", "p1", "n1", id, 201, true},
		{"PUT", "DocumentReference", "p1", "n1", id, 200, true},
		{"PUT", "DocumentReference", "p1", "n1", "", 412, false},
		{"POST", "Consent", "p1", "c", "", 422, false},
		{"POST", "DocumentReference", "p1", "n2", "", 401, false},
		{"POST", "Patient", "", "007", "", 405, false},
		{"POST", "", "", "", "", 405, false},
		{"POST", "DocumentReference", "", "", "", 400, false},
		{"POST", "DocumentReference", "p1", "n3", "", 503, false},
	}, got)
	require.True(t, strings.HasPrefix(s.Arrivals()[0].Worker, "worker-7 "))
	require.Equal(t, len(w.note("n1")), s.Arrivals()[0].Bytes)

	var log struct {
		Arrivals []Arrival `json:"arrivals"`
	}
	require.NoError(t, json.Unmarshal(control(t, s, http.MethodGet, "/arrivals", "").raw, &log))
	require.Equal(t, s.Arrivals(), log.Arrivals)
	kinds := map[string]int{}
	for _, r := range s.Requests() {
		kinds[r.Kind]++
	}
	require.Equal(t, 7, kinds["create"])
	require.Equal(t, 2, kinds["update"])
}

func TestArrivalLogIsBounded(t *testing.T) {
	t.Parallel()
	var l arrivalLog
	for i := range maxArrivals + 3 {
		l.add(&Arrival{Status: i})
		require.LessOrEqual(t, len(l.last), maxArrivals)
	}
	require.Equal(t, maxArrivals+2, l.all()[len(l.all())-1].Status)
}

// The time is that of the head: a body that comes late doesn't make it later.
func TestArrivalIsThatOfTheHead(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now})
	body := newBody()
	headCame := clock.now()
	done := make(chan response, 1)
	h := bearerFor(t, s, "system/Consent.cu")
	go func() {
		done <- send(t, plain(), http.MethodPost, s.BaseURL()+"/Consent", body, h)
	}()
	require.Eventually(t, func() bool { return len(s.Arrivals()) == 1 }, 10*time.Second, time.Millisecond)
	require.Equal(t, headCame, s.Arrivals()[0].At)
	require.Zero(t, s.Arrivals()[0].Done, "it is under way")
	clock.advance(time.Minute)
	body.end()
	require.Equal(t, http.StatusUnsupportedMediaType, (<-done).status)
	require.Equal(t, headCame, s.Arrivals()[0].At)
	require.Equal(t, headCame.Add(time.Minute), s.Arrivals()[0].Done)
}
