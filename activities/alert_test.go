package activities_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/metrics"
	"github.com/cura-health/ehr-sync/internal/store"
)

const alertSecret = "a secret of the on-call desk"

// desk receives alerts as the documentation of activities.Sign says a receiver should. It refuses the first of them with
// the statuses given.
type desk struct {
	url, secretFile string
	taken           chan activities.Alert
	tried           chan struct{}
	attempts        atomic.Int64
}

func newDesk(t *testing.T, refuse ...int) *desk {
	t.Helper()
	d := &desk{taken: make(chan activities.Alert, 100), tried: make(chan struct{}, 100), secretFile: filepath.Join(t.TempDir(), "secret")}
	require.NoError(t, os.WriteFile(d.secretFile, []byte(alertSecret+"\n"), 0o600))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(d.attempts.Add(1))
		defer func() { d.tried <- struct{}{} }()
		body, err := io.ReadAll(r.Body)
		if err != nil || !genuine(r.Header.Get("X-Cura-Signature"), body) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if n <= len(refuse) {
			w.WriteHeader(refuse[n-1])
			return
		}
		var alert activities.Alert
		if json.Unmarshal(body, &alert) == nil {
			d.taken <- alert
		}
	}))
	t.Cleanup(server.Close)
	d.url = server.URL + "/alerts?token=hush"
	return d
}

// genuine verifies a signature with nothing of ours but the secret.
func genuine(header string, body []byte) bool {
	stamp, v1, ok := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if !ok || err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, []byte(alertSecret))
	mac.Write([]byte(stamp + "." + string(body)))
	sum, err := hex.DecodeString(v1)
	return err == nil && hmac.Equal(sum, mac.Sum(nil))
}

func (d *desk) config(c *config.Config) {
	c.AlertWebhook, c.AlertWebhookSecretFile = d.url, d.secretFile
	c.ProbeInitial, c.ProbeMax = time.Millisecond, time.Millisecond
}

func TestAnAlertIsSignedAsDocumented(t *testing.T) {
	t.Parallel()
	// printf '%s' '1764000000.{"id":"1"}' | openssl dgst -sha256 -hmac 'a secret of the on-call desk'
	require.Equal(t, "t=1764000000,v1=f50bb9cc99e06dd08a20c3d876a4cb4df8ed4288a9c4b1953a0c52b881d1d701",
		activities.Sign([]byte(alertSecret), []byte(`{"id":"1"}`), time.Unix(1764000000, 0)))
}

// TestTwoWorkersTellOfAnEpisodeOnce: five failures in a row, whoever sees them, are one alert; so is the recovery.
func TestTwoWorkersTellOfAnEpisodeOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	h := newHospital(t, options{})
	workers := []*activities.Activities{h.worker(t, d.config), h.worker(t, d.config)}
	for episode := range 2 {
		for i := range 2 * store.DefaultAlertAfter {
			answer(t, workers[i%2].PaceOf(h.target, vendor(4)), ehr.Outcome{Status: 502})
		}
		raised := <-d.taken
		require.Equal(t, "raised", raised.Event)
		require.Equal(t, "failing", raised.About)
		require.Equal(t, h.target.Connection, raised.Connection)
		require.Equal(t, store.DefaultAlertAfter, raised.FailuresInARow)
		require.NotEmpty(t, raised.Commands)
		for i := range 4 {
			answer(t, workers[i%2].PaceOf(h.target, vendor(4)), ehr.Outcome{Status: 200})
		}
		cleared := <-d.taken
		require.Equal(t, "cleared", cleared.Event)
		require.Equal(t, raised.Since, cleared.Since)
		require.NotEqual(t, raised.ID, cleared.ID)
		require.Equal(t, int64(episode+1), h.stored(t, "SELECT count(*) FROM audit.records WHERE kind = 'alert.cleared'"))
	}
	for _, w := range workers {
		w.Close() // waits for what is under way
	}
	require.Empty(t, d.taken)
	require.Equal(t, int64(2), h.stored(t, "SELECT count(*) FROM audit.records WHERE kind = 'alert.raised'"))
}

func TestAnAlertIsDeliveredAgainUntilItIsTaken(t *testing.T) {
	t.Parallel()
	d := newDesk(t, 500, 429, 503)
	h := newHospital(t, options{})
	a := h.worker(t, d.config)
	for range store.DefaultAlertAfter {
		answer(t, a.PaceOf(h.target, vendor(4)), ehr.Outcome{Err: true})
	}
	require.Equal(t, "raised", (<-d.taken).Event)
	a.Close()
	require.EqualValues(t, 4, d.attempts.Load())
	require.Empty(t, d.taken)
}

func TestAnAlertThatIsNotTakenIsCounted(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		refuse   []int
		secret   string
		attempts int64
	}{
		"refused for good":     {[]int{403}, alertSecret, 1},
		"redirected":           {[]int{302}, alertSecret, 1},
		"wrong secret":         {nil, "another secret than the desk's", 1},
		"no secret to be read": {nil, "short", 0},
		"never taken, 5 times": {[]int{500, 500, 500, 500, 500, 500}, alertSecret, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, tc.refuse...)
			require.NoError(t, os.WriteFile(d.secretFile, []byte(tc.secret), 0o600))
			h := newHospital(t, options{})
			a := h.worker(t, func(c *config.Config) {
				d.config(c)
				c.RetryInitial, c.RetryMax = time.Nanosecond, time.Nanosecond
			})
			recorder, err := metrics.New()
			require.NoError(t, err)
			a.Measure(recorder)
			for range store.DefaultAlertAfter {
				answer(t, a.PaceOf(h.target, vendor(4)), ehr.Outcome{Status: 500})
			}
			for range tc.attempts {
				<-d.tried
			}
			a.Close()
			w := httptest.NewRecorder()
			recorder.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
			for _, line := range []string{
				"cura_webhook_failures_total 1", `cura_alerts_total{about="failing",event="raised"} 1`, `cura_requests_total{status="5xx"} 5`,
			} {
				require.Contains(t, w.Body.String(), line+"\n")
			}
			require.Equal(t, tc.attempts, d.attempts.Load())
			require.Empty(t, d.taken)
		})
	}
}
