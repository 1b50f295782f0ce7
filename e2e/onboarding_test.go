package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// histories reads the whole history of every workflow of the rig's namespace, by workflow id.
func (r *rig) histories() map[string]*history.History {
	r.t.Helper()
	listed, err := r.temporal.ListWorkflow(r.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{PageSize: 500})
	require.NoError(r.t, err)
	all := map[string]*history.History{}
	for _, e := range listed.GetExecutions() {
		h := &history.History{}
		events := r.temporal.GetWorkflowHistory(r.t.Context(), e.GetExecution().GetWorkflowId(), e.GetExecution().GetRunId(), false,
			enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(r.t, err)
			h.Events = append(h.Events, event)
		}
		all[e.GetExecution().GetWorkflowId()+" "+e.GetExecution().GetRunId()] = h
	}
	return all
}

// saveHistories writes one history of each kind of workflow for the replay tests, when CURA_SAVE_HISTORIES names a folder.
func (r *rig) saveHistories(suffix string) {
	r.t.Helper()
	folder := os.Getenv("CURA_SAVE_HISTORIES")
	if folder == "" {
		return
	}
	for id, h := range r.histories() {
		kind, _, _ := strings.Cut(id, "/")
		text, err := protojson.Marshal(h)
		require.NoError(r.t, err)
		require.NoError(r.t, os.WriteFile(filepath.Join(folder, kind+suffix+".json"), text, 0o600))
	}
}

func TestAHospitalIsOnboardedAndNothingPersonalReachesTemporal(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 25})
	r.worker("")
	out, code := r.onboard()
	require.Zero(t, code, out)

	served := r.ehr.Counts()
	for _, patient := range r.resources("Patient") {
		if bytes.Contains(patient, []byte("replaced-by")) {
			served["Patient"]-- // the profile is that of the patient who stayed
		}
	}
	require.Less(t, served["Patient"], r.ehr.Counts()["Patient"], "there is one")
	served["Consent"] -= len(r.permitsOfMerged())
	for table, types := range map[string][]string{
		"cura.profiles": {"Patient"}, "cura.allergies": {"AllergyIntolerance"}, "cura.medications": {"MedicationRequest", "MedicationStatement"},
		"labs.observations": {"Observation"}, "cura.visits": {"Encounter"}, "cura.consent_log": {"Consent"},
	} {
		want := 0
		for _, typ := range types {
			want += served[typ]
		}
		require.Equal(t, want, r.count(table), table)
	}
	require.Zero(t, r.count("sync.pilot_patients"), "the pilot's data is purged at live")
	require.Zero(t, r.count("sync.runs r JOIN directory.orgs o USING (org_id) WHERE o.kind = 'sandbox'"))
	require.Positive(t, r.count("audit.records WHERE kind = 'pilot.purged'"))
	_, _, code = r.starter("attention")
	require.Zero(t, code, "nothing waits for a person")

	saved := map[string]int{}
	for id, h := range r.histories() {
		if strings.HasPrefix(id, "backfill/") {
			require.LessOrEqual(t, len(h.GetEvents()), 150, "a backfill of less than 100,000 resources")
		}
		text, err := protojson.Marshal(h)
		require.NoError(t, err)
		r.requireNothingPersonal(id, string(text))
		kind, _, _ := strings.Cut(id, "/")
		saved[kind]++
	}
	r.saveHistories("")
	require.Positive(t, saved["onboarding"]*saved["backfill"]*saved["sync"], "%v", saved)

	files, err := filepath.Glob(filepath.Join(temporalDir, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	files = append(files, filepath.Join(r.dir, "worker.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		r.requireNothingPersonal(file, string(text))
	}
}

// requireNothingPersonal searches text for each patient's names, birth date, identifiers and the ids that the EHR gave.
func (r *rig) requireNothingPersonal(where, text string) {
	r.t.Helper()
	for _, secret := range r.personal() {
		require.NotContains(r.t, text, secret, where)
	}
	require.NotContains(r.t, text, r.ehr.ClientSecret(), where)
}

// personal lists what must not be found, read from the EHR's own resources.
func (r *rig) personal() []string {
	r.t.Helper()
	var found []string
	type patient struct {
		ID        string `json:"id"`
		BirthDate string `json:"birthDate"`
		Name      []struct {
			Family string   `json:"family"`
			Text   string   `json:"text"`
			Given  []string `json:"given"`
		} `json:"name"`
		Identifier []struct {
			Value string `json:"value"`
		} `json:"identifier"`
	}
	for _, raw := range r.resources("Patient") {
		var p patient
		require.NoError(r.t, json.Unmarshal(raw, &p))
		found = append(found, p.ID)
		if len(p.BirthDate) == len("2000-01-01") {
			found = append(found, p.BirthDate)
		}
		for _, n := range p.Name {
			for _, name := range append([]string{n.Family, n.Text}, n.Given...) {
				// A short name can be part of an ordinary word, or of a random id.
				if len(name) >= 6 {
					found = append(found, `"`+name+`"`, " "+name+" ")
				}
			}
		}
		for _, i := range p.Identifier {
			if len(i.Value) >= 6 {
				found = append(found, i.Value)
			}
		}
	}
	require.Greater(r.t, len(found), 100, "there is something to look for")
	for _, typ := range []string{"Observation", "Encounter"} {
		for _, raw := range r.resources(typ) {
			found = append(found, idOf(r.t, raw))
		}
	}
	return found
}

func TestCredentialsThatAreRefusedDuringTheWindowAreAskedForAndTheOnboardingGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 12})
	r.worker("")
	done := make(chan int, 1)
	var out string
	go func() {
		var code int
		out, code = r.onboard("--monitor", "30s")
		done <- code
	}()
	require.Eventually(t, func() bool {
		return r.count("audit.records WHERE kind = 'run.finished' AND details->>'kind' = 'incremental'") > 0
	}, time.Minute, 50*time.Millisecond, "the schedule runs")
	require.NoError(t, r.ehr.SetFaults(sandbox.Faults{RevokedClient: true}))
	require.Equal(t, 3, <-done, out)
	require.Contains(t, out, "refused the credentials")
	require.Contains(t, out, "starter retry ")

	stdout, _, code := r.starter("attention")
	require.Equal(t, 3, code)
	require.Contains(t, stdout, "starter retry ")
	_, stderr, code := r.starter("test", "main")
	require.Equal(t, 1, code, stderr)

	require.NoError(t, r.ehr.SetFaults(sandbox.Faults{}))
	r.ok("test", "main")
	r.ok("retry", "main")
	require.Eventually(t, func() bool {
		return r.count("sync.connections WHERE phase = 'live' AND health = 'ok'") == 1
	}, 2*time.Minute, 100*time.Millisecond)
	_, _, code = r.starter("attention")
	require.Zero(t, code)
	r.saveHistories("-refused-and-retried")
}

func TestApprovalAndAbort(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 12})
	r.worker("")
	out, code := r.onboard("--require-approval")
	require.Equal(t, 3, code, out)
	require.Contains(t, out, "starter approve ")
	preview := r.ok("pilot", "main", "--preview", "--position", "1")
	require.Contains(t, preview, "profiles.name")
	require.Contains(t, preview, "Patient.birthDate")
	_, stderr, code := r.starter("retry", "main")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "starter approve")

	r.ok("abort", "main", "--reason", "the hospital withdrew")
	require.Eventually(t, func() bool { return r.count("sync.connections WHERE phase = 'aborted'") == 1 }, time.Minute, 50*time.Millisecond)
	require.Zero(t, r.count("sync.pilot_patients"))
	require.Zero(t, r.count("cura.profiles"))
	r.saveHistories("-aborted")
}

func TestWithoutAWorkerACommandGivesUpAndSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 2})
	// The worker that registers the search attributes is gone before the onboarding begins.
	process, _ := r.worker("")
	require.Eventually(t, func() bool {
		log, err := os.ReadFile(filepath.Join(r.dir, "worker.log"))
		return err == nil && strings.Contains(string(log), "worker started")
	}, time.Minute, 50*time.Millisecond)
	require.NoError(t, process.Stop())
	r.ok("onboard", "main")
	_, stderr, code := r.starter("retry", "main")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no worker")
}
