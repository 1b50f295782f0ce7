package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// TestKilledAnywhereNothingIsLostOrDoubled kills the worker with SIGKILL at a named place, starts another, and compares
// what the EHR serves with what the tables hold.
func TestKilledAnywhereNothingIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	places := []string{"pilot/patient-stored:4", "pull/page-fetched:6", "pull/page-committed:9"}
	patients := 20
	if os.Getenv("CURA_SOAK") != "" {
		patients, places = 300, nil
		for n := 1; n <= 10; n++ {
			places = append(places, fmt.Sprintf("pilot/patient-stored:%d", n))
		}
		for n := 1; n <= 40; n += 3 {
			places = append(places, fmt.Sprintf("pull/page-fetched:%d", n), fmt.Sprintf("pull/page-committed:%d", n))
		}
	}
	for _, place := range places {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Patients: patients})
			first, reached := r.worker(place)
			r.ok("onboard", "main", "--monitor", "10s", "--interval", "2s")
			select {
			case <-first.Done():
			case <-time.After(2 * time.Minute):
				require.Fail(t, "the place was never reached", place)
			}
			text, err := os.ReadFile(reached)
			require.NoError(t, err, "it was the failpoint that killed the worker")
			name, _, _ := strings.Cut(place, ":")
			require.Equal(t, name, string(text))

			r.worker("")
			require.Eventually(t, func() bool { return r.count("sync.connections WHERE phase = 'live'") == 1 }, 3*time.Minute, 100*time.Millisecond)
			r.requireSameAsEHR()
		})
	}
}

// requireSameAsEHR compares the ids that the EHR serves, read here with nothing but net/http, with the ids in each table.
func (r *rig) requireSameAsEHR() {
	r.t.Helper()
	for typ, table := range map[string]string{
		"Patient": "sync.patient_links", "AllergyIntolerance": "cura.allergies", "MedicationRequest": "cura.medications",
		"MedicationStatement": "cura.medications", "Observation": "labs.observations", "Encounter": "cura.visits", "Consent": "cura.consent_log",
	} {
		var want []string
		for _, raw := range r.resources(typ) {
			want = append(want, idOf(r.t, raw))
		}
		slices.Sort(want)
		rows := want
		if typ == "Consent" {
			rows = slices.DeleteFunc(slices.Clone(want), func(id string) bool { return slices.Contains(r.permitsOfMerged(), id) })
		}
		where := ""
		if table == "cura.medications" {
			where = " AND resource_type = '" + typ + "'"
		}
		live := "SELECT ehr_id FROM %s JOIN directory.orgs USING (org_id) WHERE kind = 'live' %s ORDER BY ehr_id COLLATE \"C\""
		require.Equal(r.t, rows, storetest.Query[string](r.t, r.db, fmt.Sprintf(live, table, where)), table)
		require.Equal(r.t, want, storetest.Query[string](r.t, r.db, fmt.Sprintf(live, "sync.landing", " AND resource_type = '"+typ+"'")), "each version has landed once")
	}
	require.Zero(r.t, r.count("sync.run_counts WHERE served <> stored + unchanged + quarantined + in_review + withheld"))
	require.Zero(r.t, r.count("sync.dead_letters WHERE state = 'open'"))
}

// permitsOfMerged are the Consents of patients whom the EHR has merged into another that permit and nothing else: they land, and
// count for nobody.
func (r *rig) permitsOfMerged() (ids []string) {
	r.t.Helper()
	merged := map[string]bool{}
	for _, raw := range r.resources("Patient") {
		if bytes.Contains(raw, []byte("replaced-by")) {
			merged["Patient/"+idOf(r.t, raw)] = true
		}
	}
	for _, raw := range r.resources("Consent") {
		var c struct {
			Status  string `json:"status"`
			Patient struct {
				Reference string `json:"reference"`
			} `json:"patient"`
		}
		require.NoError(r.t, json.Unmarshal(raw, &c))
		if merged[c.Patient.Reference] && c.Status == "active" && !bytes.Contains(raw, []byte(`"deny"`)) && !bytes.Contains(raw, []byte("OPTOUT")) {
			ids = append(ids, idOf(r.t, raw))
		}
	}
	return ids
}

// resources reads all resources of a type from the EHR with plain HTTP.
func (r *rig) resources(typ string) []json.RawMessage {
	r.t.Helper()
	roots := x509.NewCertPool()
	require.True(r.t, roots.AppendCertsFromPEM(r.ehr.CAPEM()))
	plain := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	defer plain.CloseIdleConnections()
	answer := func(req *http.Request, into any) {
		resp, err := plain.Do(req)
		require.NoError(r.t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(r.t, err)
		require.Equal(r.t, http.StatusOK, resp.StatusCode, string(text))
		require.NoError(r.t, json.Unmarshal(text, into))
	}
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"system/*.rs"}}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.ehr.TokenURL(), strings.NewReader(form.Encode()))
	require.NoError(r.t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(r.ehr.ClientID(), r.ehr.ClientSecret())
	var token struct {
		AccessToken string `json:"access_token"`
	}
	answer(req, &token)

	var found []json.RawMessage
	next := r.ehr.BaseURL() + "/" + typ + "?_count=1000"
	for next != "" {
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, next, http.NoBody)
		require.NoError(r.t, err)
		req.Header.Set("Authorization", "Bearer "+token.AccessToken)
		var page struct {
			Entry []struct {
				Resource json.RawMessage `json:"resource"`
			} `json:"entry"`
			Link []struct {
				Relation string `json:"relation"`
				URL      string `json:"url"`
			} `json:"link"`
		}
		answer(req, &page)
		for _, e := range page.Entry {
			found = append(found, e.Resource)
		}
		next = ""
		for _, l := range page.Link {
			if l.Relation == "next" {
				next = l.URL
			}
		}
	}
	return found
}

func idOf(tb testing.TB, raw json.RawMessage) string {
	tb.Helper()
	var head struct {
		ID string `json:"id"`
	}
	require.NoError(tb, json.Unmarshal(raw, &head))
	return head.ID
}
