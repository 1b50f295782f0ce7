package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/stack"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// consentRig is a hospital whose EHR is a process of its own and has patients and nothing else, all of them onboarded, and
// whose connection delivers everything by FHIR.
type consentRig struct {
	*rig

	grace    time.Duration
	control  string // URL of the EHR's control endpoint
	org      cura.OrgID
	conn     cura.ConnectionID
	patients []*subject
}

// subject is a patient. Their consent is changed by one caller at a time: the judge pairs log and halts by their order.
type subject struct {
	link    string
	profile cura.ProfileID
	// granted is Cura's id of the consent that permits, denied of the one that denies; empty: there is none that stands.
	granted, denied string
}

// hospital says what newConsentRig makes.
type hospital struct {
	db       *storetest.DB // nil: a new one of the shared cluster
	patients int
	grace    time.Duration
	wire     *wire // what leads to the EHR; nil: nothing does but the kernel
	// silent: the EHR isn't told of changes of consent, so that the queues hold nothing but what a test puts there.
	silent bool
}

func newConsentRig(t *testing.T, h hospital) *consentRig {
	t.Helper()
	ctx := t.Context()
	if h.db == nil {
		h.db = cluster.New(t)
	}
	r := &consentRig{rig: &rig{t: t, db: h.db, dir: t.TempDir(), namespace: "test-" + uuid.NewString()}, grace: h.grace}
	view := r.startEHR(spare(h.patients))
	r.register(ctx)
	keyFile := filepath.Join(r.dir, "key.json")
	require.NoError(t, secrets.GenerateKeyFile(keyFile))
	r.env = append(os.Environ(),
		"CURA_DATABASE_URL="+r.db.URL, "CURA_KEY_FILE="+keyFile, "TEMPORAL_ADDRESS="+temporal.Address(), "TEMPORAL_NAMESPACE="+r.namespace,
		"CURA_RETRY_INITIAL=10ms", "CURA_RETRY_MAX=50ms", "CURA_PROBE_INITIAL=10ms", "CURA_PROBE_MAX=50ms", "CURA_AS=tester",
		"CURA_SEND_GRACE="+h.grace.String())
	r.ok("org", "add", "hospital")
	base := view.BaseURL
	if h.wire != nil {
		base = h.wire.open(t, base)
	}
	r.ok("connection", "add", "--org", "hospital", "--name", "main", "--base-url", base, "--client-id", view.ClientID,
		"--secret-file", view.SecretFile, "--ca-file", view.CAFile, "--match", "mrn:urn:test:mrn")
	first := r.start("")
	r.ok("onboard", "main", "--monitor", "72h", "--interval", "24h", "--pilot-threshold", "1")
	require.Eventually(t, func() bool { return r.count("sync.connections WHERE phase = 'monitoring'") == 1 }, 2*time.Minute, 50*time.Millisecond)
	require.NoError(t, first.Stop())

	r.org = cura.OrgID(storetest.Query[string](t, r.db, "SELECT org_id::text FROM directory.orgs WHERE kind = 'live'")[0])
	r.conn = cura.ConnectionID(storetest.Query[string](t, r.db, "SELECT connection_id::text FROM sync.connections WHERE shadow_of IS NULL")[0])
	r.exec(`UPDATE sync.connections SET settings_version = settings_version + 1,
		deliveries = '{"note":"fhir","diagnosis":"fhir","procedure":"fhir","consent-event":"fhir"}',
		scopes = scopes || '{system/DocumentReference.crus,system/Condition.crus,system/Procedure.crus,system/Consent.crus}'`)
	if h.silent {
		r.exec("INSERT INTO cura.org_policies (org_id, announce_consent) SELECT org_id, false FROM directory.orgs WHERE kind = 'live'")
	}
	links := storetest.Query[string](t, r.db, "SELECT link_id::text || ' ' || profile_id FROM sync.patient_links WHERE connection_id = $1::uuid AND replaced_by = '' ORDER BY 1", string(r.conn))
	require.GreaterOrEqual(t, len(links), h.patients)
	for _, text := range links[:h.patients] {
		link, profile, _ := strings.Cut(text, " ")
		require.NoError(t, r.db.EnsureHead(ctx, r.org, cura.ProfileID(profile)))
		r.patients = append(r.patients, &subject{link: link, profile: cura.ProfileID(profile)})
	}
	return r
}

// ehrView is what starter sandbox prints.
type ehrView struct {
	BaseURL    string `json:"base_url"`
	ControlURL string `json:"control_url"`
	CAFile     string `json:"ca_file"`
	ClientID   string `json:"client_id"`
	SecretFile string `json:"secret_file"`
}

// startEHR starts the sandbox EHR as a process of its own.
func (r *consentRig) startEHR(patients int) ehrView {
	r.t.Helper()
	data, printed := filepath.Join(r.dir, "fhir"), filepath.Join(r.dir, "ehr.log")
	require.NoError(r.t, os.Mkdir(data, 0o700))
	var lines strings.Builder
	for n := range patients {
		fmt.Fprintf(&lines, `{"resourceType":"Patient","id":"p%[1]d","identifier":[{"system":"urn:test:mrn","value":"M%[1]d"}],`+
			`"name":[{"family":"Test%[1]d","given":["Pat"]}],"gender":"female","birthDate":"1970-01-01"}`+"\n", n+1)
	}
	require.NoError(r.t, os.WriteFile(filepath.Join(data, "patients.ndjson"), []byte(lines.String()), 0o600))
	ehr, err := stack.StartProcess(r.t.Context(), stack.ProcessConfig{
		Name: "EHR", Path: filepath.Join(programs, "starter"), Log: printed, Dir: r.dir,
		Args: []string{
			"sandbox", "--addr", "127.0.0.1:0", "--control-addr", "127.0.0.1:0", "--data", data, "--state", filepath.Join(r.dir, "ehr"), "--output", "json",
		},
	})
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, ehr.Stop()) })
	var view ehrView
	require.Eventually(r.t, func() bool {
		text, err := os.ReadFile(printed)
		return err == nil && json.Unmarshal(text, &view) == nil
	}, 30*time.Second, 20*time.Millisecond)
	r.control = view.ControlURL
	return view
}

// register makes a Temporal namespace of the rig's own.
func (r *consentRig) register(ctx context.Context) {
	r.t.Helper()
	admin, err := client.DialContext(ctx, client.Options{HostPort: temporal.Address()})
	require.NoError(r.t, err)
	defer admin.Close()
	_, err = admin.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: r.namespace, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	require.NoError(r.t, err)
}

// program is a worker or a revoker that may be stopped at a failpoint.
type program struct {
	*stack.Process

	t       testing.TB
	reached string
	out     string
}

// start starts a worker with a failpoint ("place:n", or nothing) and more environment.
func (r *consentRig) start(failpoint string, env ...string) *program {
	r.t.Helper()
	return r.launch("worker", nil, failpoint, env...)
}

// revoker starts an officer's change of a patient's consent as a program of its own.
func (r *consentRig) revoker(s *subject, change, failpoint string, env ...string) *program {
	r.t.Helper()
	return r.launch("revoker", []string{"-org", string(r.org), "-profile", string(s.profile), "-consent", s.turn(change), "-change", change}, failpoint, env...)
}

func (r *consentRig) launch(name string, args []string, failpoint string, env ...string) *program {
	r.t.Helper()
	id := uuid.NewString()
	p := &program{t: r.t, reached: filepath.Join(r.dir, "reached-"+id), out: filepath.Join(r.dir, name+"-"+id+".log")}
	var err error
	p.Process, err = stack.StartProcess(r.t.Context(), stack.ProcessConfig{
		Name: name, Path: filepath.Join(programs, name), Args: args, Log: p.out, Dir: r.dir, Grace: 30 * time.Second,
		Env: append(append(append([]string{}, r.env...), env...), "CURA_FAILPOINT="+failpoint, "CURA_FAILPOINT_REACHED="+p.reached),
	})
	require.NoError(r.t, err)
	r.t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		if err := p.Stop(); err != nil {
			r.t.Error("stopping the "+name+":", err)
		}
	})
	return p
}

// signal sends a signal to the process; one that has ended gets none.
func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	select {
	case <-p.Done():
	default:
		if err := syscall.Kill(p.PID(), sig); !errors.Is(err, syscall.ESRCH) {
			require.NoError(p.t, err)
		}
	}
}

// waitAt waits until the program has reached a place, and been stopped or killed there.
func (p *program) waitAt(place string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		text, err := os.ReadFile(p.reached)
		return err == nil && string(text) == place && p.halted()
	}, 30*time.Second, 2*time.Millisecond, "the place was never reached: %s\n%s", place, p)
}

// halted reports whether the process is stopped or has ended.
func (p *program) halted() bool {
	select {
	case <-p.Done():
		return true
	default:
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(after, "T")
}

// String is what the program has printed.
func (p *program) String() string {
	text, err := os.ReadFile(p.out)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// turn notes a change of a patient's consent and gives the id of the consent that it is of.
func (s *subject) turn(change string) string {
	switch change {
	case "grant":
		s.granted = uuid.NewString()
		return s.granted
	case "deny":
		s.denied = uuid.NewString()
		return s.denied
	default: // withdraw: the denial first, for what it denies is permitted again
		id := s.denied
		if id == "" {
			id, s.granted = s.granted, ""
		}
		s.denied = ""
		return id
	}
}

// permits reports whether the patient's consents permit anything, once they are effective.
func (s *subject) permits() bool { return s.granted != "" && s.denied == "" }

// change changes a patient's consent in this process, up to the commit of the halt.
func (r *consentRig) change(s *subject, change string) {
	r.t.Helper()
	require.NoError(r.t, r.tryChange(s, change))
}

func (r *consentRig) tryChange(s *subject, change string) error {
	before := *s
	entry, id := consent.Grant(consent.Terms{}), s.turn(change)
	switch {
	case change == "deny", change == "withdraw" && id == before.denied:
		entry = consent.Revocation(time.Now())
	}
	if change == "withdraw" {
		entry.Status = "inactive"
	}
	err := r.db.InOrg(r.t.Context(), r.org, func(tx *store.Tx) error {
		_, err := tx.ChangeConsent(r.t.Context(), store.ConsentChange{Profile: s.profile, ConsentID: id, Entry: entry, Actor: "officer", Role: cura.RoleConsentOfficer})
		return err
	})
	if err != nil {
		*s = before
	}
	return err
}

// settle makes the change effective.
func (r *consentRig) settle(s *subject) {
	r.t.Helper()
	_, err := r.db.SettleConsent(r.t.Context(), r.org, s.profile, gate.Permits)
	require.NoError(r.t, err)
}

// grant has a patient permit everything.
func (r *consentRig) grant(s *subject) {
	r.t.Helper()
	r.change(s, "grant")
	r.settle(s)
}

// add queues n notes for a patient and gives their ids.
func (r *consentRig) add(s *subject, n int) []string {
	r.t.Helper()
	ids, err := r.tryAdd(s, n)
	require.NoError(r.t, err)
	return ids
}

func (r *consentRig) tryAdd(s *subject, n int) (ids []string, err error) {
	ctx := r.t.Context()
	err = r.db.InOrg(ctx, r.org, func(tx *store.Tx) error {
		for range n {
			id, err := tx.AddItem(ctx, r.conn, s.link, cura.Artefact{
				Kind: cura.Note, ID: uuid.NewString(), Version: 1, Author: cura.Author{Name: "Ada", Role: cura.RoleClinician}, AuthoredAt: time.Now().Add(-time.Minute),
				Note: &cura.NoteContent{Type: "11506-3", Title: "Progress note", ContentType: "text/plain", Text: "All is well."},
			}, store.NotExempt, "tester")
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	return ids, err
}

// faults turns the EHR's knobs.
func (r *consentRig) faults(knobs string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPatch, r.controlURL("faults"), strings.NewReader(knobs))
	require.NoError(r.t, err)
	r.answer(req)
}

func (r *consentRig) controlURL(name string) string {
	r.t.Helper()
	at, err := url.JoinPath(r.control, name)
	require.NoError(r.t, err)
	return at
}

func (r *consentRig) answer(req *http.Request) []byte {
	r.t.Helper()
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := plain.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusOK, resp.StatusCode, string(text))
	return text
}

// arrivalsVerdict is what the judge prints.
type arrivalsVerdict struct {
	Arrivals        int     `json:"arrivals"`
	Disclosures     int     `json:"disclosures"`
	Exempt          int     `json:"exempt"`
	AfterRevocation int     `json:"after_revocation"`
	WithoutConsent  int     `json:"without_consent"`
	Strangers       int     `json:"strangers"`
	Records         int     `json:"records"`
	Duplicates      int     `json:"duplicates"`
	Changes         int     `json:"changes"`
	Longest         float64 `json:"longest_ms"`
	Examples        any     `json:"examples,omitempty"`
}

// judge has the program that shares no code with the push say what arrived against what was permitted.
func (r *consentRig) judge() (v arrivalsVerdict) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.controlURL("arrivals"), http.NoBody)
	require.NoError(r.t, err)
	log := r.write("arrivals.json", string(r.answer(req)))
	judge := exec.CommandContext(r.t.Context(), filepath.Join(programs, "arrivals"), "-database", r.db.SuperuserURL, "-log", log)
	var errs bytes.Buffer
	judge.Stderr = &errs
	out, err := judge.Output()
	require.NoError(r.t, err, errs.String())
	require.NoError(r.t, json.Unmarshal(out, &v))
	return v
}

// requireObeyed requires that nothing arrived that no consent permitted, nothing twice, and that each change was effective in time.
func (r *consentRig) requireObeyed() arrivalsVerdict {
	r.t.Helper()
	v := r.judge()
	require.Zero(r.t, v.AfterRevocation, "%+v", v)
	require.Zero(r.t, v.WithoutConsent, "%+v", v)
	require.Zero(r.t, v.Duplicates, "%+v", v)
	require.Less(r.t, v.Longest, float64((r.grace + 3*time.Second).Milliseconds()), "%+v", v)
	return v
}

// requireSettled waits until every item has an end, and every change of consent is effective.
func (r *consentRig) requireSettled(within time.Duration) {
	r.t.Helper()
	deadline := time.Now().Add(within)
	for left := []string{""}; len(left) > 0; {
		left = storetest.Query[string](r.t, r.db, `
			SELECT o.state || ' ' || coalesce(d.state, '') || ' ' || o.why FROM push.outbox o LEFT JOIN push.ledger d USING (org_id, item_id)
			WHERE o.state NOT IN ('delivered', 'cancelled', 'denied', 'review') UNION ALL
			SELECT 'halted since ' || opened_at::text FROM cura.consent_halts WHERE effective_at IS NULL`)
		if time.Now().After(deadline) {
			require.Empty(r.t, left, "these never came to an end")
		}
		<-time.After(50 * time.Millisecond)
	}
}

// exec runs a statement as superuser.
func (r *consentRig) exec(sql string) {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.db.SuperuserURL)
	require.NoError(r.t, err)
	defer conn.Close(context.WithoutCancel(r.t.Context()))
	_, err = conn.Exec(r.t.Context(), sql)
	require.NoError(r.t, err)
}

// terminate ends the sessions of this database that a condition on pg_stat_activity names.
func (r *consentRig) terminate(where string) int {
	r.t.Helper()
	return r.count("(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'cura-ehr-sync' AND " + where + ") AS t")
}

// The sessions that are ended: those of sends under way, and those that listen.
const (
	sendSessions = "state = 'idle in transaction'"
	listeners    = "query LIKE 'LISTEN%'"
)

// await waits until an item is in one of some states.
func (r *consentRig) await(item string, states ...string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		return r.count("push.outbox WHERE item_id = $1::uuid AND state = ANY($2)", item, states) == 1
	}, 30*time.Second, 20*time.Millisecond)
}
