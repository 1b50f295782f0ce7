package sandbox

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newBody is the body of a request that comes when the test says so.
func newBody() *slowBody {
	r, w := io.Pipe()
	return &slowBody{r, w}
}

type slowBody struct {
	*io.PipeReader

	writer *io.PipeWriter
}

func (b *slowBody) end() { _ = b.writer.Close() } // a pipe always closes

// attempt posts a note and gives the status of the answer, or 0 and why there was none.
func (w writer) attempt(ctx context.Context, client *http.Client, identifier string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.address("/DocumentReference"), strings.NewReader(string(w.note(identifier))))
	if err != nil {
		return 0, err
	}
	for k, v := range w.header {
		req.Header.Set(k, v)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

func TestWriteTroubles(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		faults    WriteFaults
		status    int // 0: none
		processed bool
	}{
		{"error after", WriteFaults{ErrorAfterShare: 1}, 500, true},
		{"throttle", WriteFaults{ThrottleShare: 1}, 429, false},
		{"reset after", WriteFaults{ResetAfterShare: 1}, 0, true},
		{"reset before", WriteFaults{ResetBeforeShare: 1}, 0, false},
		{"timeout after", WriteFaults{TimeoutAfterShare: 1}, 0, true},
		{"stuck", WriteFaults{StuckPatients: []string{"p1"}}, 0, false},
		{"another is stuck", WriteFaults{StuckPatients: []string{"p2"}}, 201, true},
		{"slow", WriteFaults{LatencyMS: 5, LatencyBeforeMS: 5}, 201, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := writerOf(t, "")
			knobs(t, w.server, Faults{Writes: tt.faults})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var status int
			var err error
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				status, err = w.attempt(ctx, plain(), "n")
			}()
			hangs := tt.name == "timeout after" || tt.name == "stuck"
			if hangs { // who waits for an answer waits for ever
				require.Eventually(t, func() bool {
					log := w.server.Arrivals()
					return len(log) == 1 && log[0].Bytes > 0 && log[0].Processed == tt.processed
				}, 10*time.Second, time.Millisecond)
				cancel()
			}
			<-answered
			require.Equal(t, tt.status == 0, err != nil, "%v", err)
			require.Equal(t, tt.status, status)
			require.Equal(t, hangs, errors.Is(err, context.Canceled))
			require.Eventually(t, func() bool { return !w.server.Arrivals()[0].Done.IsZero() }, 10*time.Second, time.Millisecond)
			a := w.server.Arrivals()[0]
			require.Equal(t, tt.status, a.Status)
			require.Equal(t, tt.processed, a.Processed)
			require.Equal(t, tt.processed, len(w.server.Written("DocumentReference")) == 1)
		})
	}
}

// Which writes are hit depends on the seed, the identifier and the attempt: runs repeat, and another attempt gets through.
func TestWriteTroublesRepeat(t *testing.T) {
	t.Parallel()
	f := WriteFaults{ErrorAfterShare: 0.05, ErrorBeforeShare: 0.1, ThrottleShare: 0.05}
	statuses := func() (first []int, attempts int) {
		w := writerOf(t, "")
		knobs(t, w.server, Faults{Writes: f})
		for i := range 200 {
			for try := 1; ; try++ {
				require.Less(t, try, 20)
				status, err := w.attempt(t.Context(), plain(), fmt.Sprintf("n%d", i))
				require.NoError(t, err)
				attempts++
				if try == 1 {
					first = append(first, status)
				}
				if status == http.StatusCreated {
					break
				}
			}
		}
		return first, attempts
	}
	first, attempts := statuses()
	again, _ := statuses()
	require.Equal(t, first, again)
	count := map[int]int{}
	for _, status := range first {
		count[status]++
	}
	require.InDelta(t, 160, count[201], 25, "%v", count)
	require.Positive(t, count[429])
	require.Positive(t, count[500])
	require.Positive(t, count[503])
	require.InDelta(t, 250, attempts, 40)
}

// What is refused before it is processed says when to come again where it is throttled or unavailable.
func TestWriteRefusals(t *testing.T) {
	t.Parallel()
	w := writerOf(t, "")
	knobs(t, w.server, Faults{Writes: WriteFaults{ThrottleShare: 1}})
	r := w.post("DocumentReference", w.note("n"))
	require.Equal(t, "throttled", r.issue(t))
	require.Equal(t, "1", r.header.Get("Retry-After"))
	knobs(t, w.server, Faults{Writes: WriteFaults{ErrorBeforeShare: 1}})
	after := map[int]string{}
	for i := range 20 {
		r = w.post("DocumentReference", w.note(fmt.Sprintf("m%d", i)))
		after[r.status] = r.header.Get("Retry-After")
	}
	require.Equal(t, map[int]string{500: "", 503: "1"}, after)
	require.Empty(t, w.server.Written("DocumentReference"))

	// The knobs of all requests go on as they are; none of them refuses what was processed.
	knobs(t, w.server, Faults{ErrorRate: 0.5, Throttle: Throttle{EveryN: 3}})
	for i := range 30 {
		w.post("DocumentReference", w.note(fmt.Sprintf("o%d", i)))
	}
	for _, a := range w.server.Arrivals() {
		require.Equal(t, a.Status == http.StatusCreated, a.Processed)
	}
}

// Over HTTP/2 a reset is that of the stream: who shares the connection goes on. A write that hangs doesn't keep the sandbox
// from stopping.
func TestWriteTroublesOverTLS(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{DataDir: folder(t, map[string]string{
		"a": patientA + `{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"}}`,
	})})
	require.NoError(t, err)
	streams := trusting(t, s, tls.VersionTLS13)
	plainly := trusting(t, s, tls.VersionTLS13)
	transport, ok := plainly.Transport.(*http.Transport)
	require.True(t, ok)
	transport.ForceAttemptHTTP2 = false

	asked, err := streams.PostForm(s.TokenURL(), map[string][]string{
		"grant_type": {"client_credentials"}, "scope": {"system/DocumentReference.cu"}, "client_id": {s.ClientID()}, "client_secret": {s.ClientSecret()},
	})
	require.NoError(t, err)
	raw, err := io.ReadAll(asked.Body)
	require.NoError(t, err)
	require.NoError(t, asked.Body.Close())
	w := writer{client{t, s, map[string]string{
		"Authorization": "Bearer " + getText(raw, "access_token"), "Content-Type": "application/fhir+json",
	}}, "Patient/p1", "Encounter/e1", ""}

	knobs(t, s, Faults{Writes: WriteFaults{ResetAfterShare: 1}})
	for _, c := range []*http.Client{streams, plainly} {
		_, err = w.attempt(t.Context(), c, "n")
		require.Error(t, err)
	}
	require.Len(t, s.Written("DocumentReference"), 2, "neither is sent again by itself")
	knobs(t, s, Faults{})
	for _, c := range []*http.Client{streams, plainly} {
		status, err := w.attempt(t.Context(), c, "n")
		require.NoError(t, err)
		require.Equal(t, http.StatusCreated, status)
	}
	knobs(t, s, Faults{Writes: WriteFaults{StuckPatients: []string{"p1"}}})
	gone := make(chan error, 1)
	go func() {
		_, err := w.attempt(t.Context(), streams, "n")
		gone <- err
	}()
	require.Eventually(t, func() bool { return len(s.Arrivals()) == 5 }, 10*time.Second, time.Millisecond)
	require.NoError(t, s.Close())
	require.Error(t, <-gone)
}

func TestWriteKnobsAreChecked(t *testing.T) {
	t.Parallel()
	for text, f := range map[string]WriteFaults{
		"writes.latency_ms":         {LatencyMS: -1},
		"writes.latency_before_ms":  {LatencyBeforeMS: -1},
		"writes.throttle_share":     {ThrottleShare: 1.5},
		"writes.reset_after_share":  {ResetAfterShare: -0.1},
		"writes.stuck_patients":     {StuckPatients: []string{""}},
		"shares that sum up to 1":   {ErrorAfterShare: 0.6, ErrorBeforeShare: 0.6},
		"writes.error_before_share": {ErrorBeforeShare: 2},
	} {
		require.ErrorContains(t, Faults{Writes: f}.Validate(), text)
	}
	require.NoError(t, Faults{Writes: WriteFaults{ErrorAfterShare: 0.7, ErrorBeforeShare: 0.2, ThrottleShare: 0.1}}.Validate())

	s := hospital(t)
	r := control(t, s, http.MethodPatch, "/faults", `{"writes":{"timeout_after_share":0.2,"hold":true}}`)
	require.Equal(t, http.StatusOK, r.status, "body: %s", r.raw)
	r = control(t, s, http.MethodPatch, "/faults", `{"writes":{"hold":null}}`)
	require.JSONEq(t, `{"writes":{"timeout_after_share":0.2}}`, string(r.raw))
	require.Equal(t, http.StatusBadRequest, control(t, s, http.MethodPatch, "/faults", `{"writes":{"timeout_share":0.2}}`).status)
}
