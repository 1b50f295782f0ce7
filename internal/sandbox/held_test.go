package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is kept for sign-off is accepted, and seen once it is filed.
func TestHeld(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Now: clock.now, DataDir: folder(t, map[string]string{
		"a": patientA + `{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"}}`,
	})})
	w := writerTo(t, s)
	before := w.post("DocumentReference", w.note("before")).written(t)
	knobs(t, s, Faults{Writes: WriteFaults{Hold: true}})
	r := w.post("DocumentReference", w.note("n"))
	require.Equal(t, http.StatusCreated, r.status)
	held := r.written(t)
	require.Equal(t, http.StatusNotFound, w.get("/"+held).status)
	require.Empty(t, w.get("/DocumentReference?identifier=n").ids(t))
	require.Len(t, s.Written("DocumentReference"), 2, "the EHR has it all the same")
	_, id, _ := strings.Cut(before, "/")
	withdrawn := w.note("before", having("id", `"`+id+`"`), having("status", `"entered-in-error"`))
	require.Equal(t, http.StatusOK, w.do(http.MethodPut, "/"+before, withdrawn).status)
	require.Equal(t, "current", w.get("/"+before).get(t, "status"), "a change waits too")
	require.Equal(t, http.StatusConflict, w.do(http.MethodPut, "/"+before, withdrawn).status, "one at a time")
	require.Equal(t, http.StatusConflict, w.do(http.MethodPut, "/"+before, withdrawn, "If-Match", `W/"1"`).status)
	require.Len(t, s.Written("DocumentReference"), 2)

	clock.advance(time.Hour)
	sameBytes(t, `{"filed":2}`+"\n", control(t, s, http.MethodPost, "/held/file", "").raw)
	w = writerTo(t, s) // its token has expired
	require.Equal(t, "entered-in-error", w.get("/"+before).get(t, "status"))
	r = w.get("/" + held)
	require.Equal(t, `W/"1"`, r.header.Get("ETag"))
	require.Equal(t, "2026-03-01T13:00:00.000Z", r.get(t, "meta", "lastUpdated"), "when it was signed")
	require.Len(t, s.Written("DocumentReference"), 2)
	sameBytes(t, `{"filed":0}`+"\n", control(t, s, http.MethodPost, "/held/file", "").raw)

	var told struct {
		Written map[string][]json.RawMessage `json:"written"`
	}
	require.NoError(t, json.Unmarshal(control(t, s, http.MethodGet, "/written", "").raw, &told))
	require.Equal(t, s.Written("DocumentReference"), told.Written["DocumentReference"])
	require.Len(t, told.Written, 4)
	sameBytes(t, `{"written":{"Consent":[]}}`+"\n", control(t, s, http.MethodGet, "/written?type=Consent", "").raw)
}
