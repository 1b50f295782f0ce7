package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// deliveryRig is an onboarded hospital to whose EHR everything is delivered by FHIR, and whose patients consent.
type deliveryRig struct {
	*rig

	vendor   string
	org      cura.OrgID
	conn     cura.ConnectionID
	patients []recipient
}

// recipient is a patient in whose record artefacts are to arrive.
type recipient struct {
	link, ehrID string
	profile     cura.ProfileID
}

// spare is how many patients an EHR has of whom so many are certainly not merged into another.
func spare(patients int) int { return patients + patients/10 + 1 }

// newDeliveryRig onboards the patients of a vendor's EHR up to the monitoring, with a worker that ends then.
func newDeliveryRig(tb testing.TB, profile string, patients int, settings ...string) *deliveryRig {
	tb.Helper()
	cfg := sandbox.Config{Patients: spare(patients), Vendor: profile}
	if profile == "generic" {
		cfg.Vendor = ""
	}
	r := &deliveryRig{vendor: profile, rig: newOrg(tb, cfg, append([]string{
		"CURA_SEND_GRACE=1500ms", "CURA_RETRY_ATTEMPTS=12", "CURA_PAGE_SIZE=200", "CURA_OVERLAP=10m",
	}, settings...)...)}
	flags := []string{"--profile", profile, "--types", "Patient,Encounter"}
	for _, kind := range cura.ArtefactKinds() {
		flags = append(flags, "--deliver", string(kind)+"=fhir")
	}
	i := slices.IndexFunc(vendors(), func(v vendor) bool { return v.profile == profile })
	r.connect(r.ehr.BaseURL(), append(flags, vendors()[i].flags...)...)
	if vendors()[i].roster {
		r.ok("roster", "upload", "main", r.write("roster", strings.Join(r.ehrPatients(), "\n")+"\n"))
	}
	first, _ := r.worker("")
	r.ok("onboard", "main", "--monitor", "72h", "--interval", "24h", "--pilot-threshold", "1")
	require.Eventually(tb, func() bool { return r.count("sync.connections WHERE phase = 'monitoring'") == 1 }, 2*time.Minute, 50*time.Millisecond)
	require.NoError(tb, first.Stop())

	r.org = cura.OrgID(storetest.Query[string](tb, r.db, "SELECT org_id::text FROM directory.orgs WHERE kind = 'live'")[0])
	r.conn = cura.ConnectionID(storetest.Query[string](tb, r.db, "SELECT connection_id::text FROM sync.connections WHERE shadow_of IS NULL")[0])
	links := storetest.Query[[]string](tb, r.db, `
		SELECT ARRAY[link_id::text, ehr_id, profile_id::text] FROM sync.patient_links WHERE connection_id = $1::uuid AND replaced_by = '' ORDER BY ehr_id`, string(r.conn))
	require.GreaterOrEqual(tb, len(links), patients)
	for _, l := range links[:patients] {
		r.patients = append(r.patients, recipient{link: l[0], ehrID: l[1], profile: cura.ProfileID(l[2])})
	}
	return r
}

// ehrPatients are the EHR's ids of its patients.
func (r *deliveryRig) ehrPatients() (ids []string) {
	r.t.Helper()
	var text strings.Builder
	require.NoError(r.t, r.ehr.Source(&text))
	for line := range strings.Lines(text.String()) {
		var head struct {
			ResourceType string `json:"resourceType"`
			ID           string `json:"id"`
		}
		require.NoError(r.t, json.Unmarshal([]byte(line), &head))
		if head.ResourceType == "Patient" {
			ids = append(ids, head.ID)
		}
	}
	return ids
}

// consent has every patient consent to everything that isn't sensitive.
func (r *deliveryRig) consent() {
	r.t.Helper()
	ctx := r.t.Context()
	for _, p := range r.patients {
		require.NoError(r.t, r.db.EnsureHead(ctx, r.org, p.profile))
		require.NoError(r.t, r.db.InOrg(ctx, r.org, func(tx *store.Tx) error {
			_, err := tx.ChangeConsent(ctx, store.ConsentChange{
				Profile: p.profile, Entry: consent.Grant(consent.Terms{}), Actor: "officer", Role: cura.RoleConsentOfficer,
			})
			return err
		}))
		_, err := r.db.SettleConsent(ctx, r.org, p.profile, gate.Permits)
		require.NoError(r.t, err)
	}
}

// uniqueNote is a note whose text no other has, so that it is known again at an EHR that keeps no identifier.
func uniqueNote() cura.Artefact {
	id, now := uuid.NewString(), time.Now().UTC().Truncate(time.Second)
	return cura.Artefact{
		Kind: cura.Note, ID: id, Version: 1, Author: cura.Author{Name: "Ada", Role: cura.RoleClinician}, AuthoredAt: now.Add(-time.Minute),
		Note: &cura.NoteContent{
			Type: "11506-3", Title: "Progress note", ContentType: "text/plain", Text: "This is note " + id + ".", Start: now.Add(-time.Hour), End: now.Add(-time.Minute),
		},
	}
}

// add queues artefacts for a patient, in one transaction, and gives the items.
func (r *deliveryRig) add(p recipient, artefacts ...cura.Artefact) (items []string) {
	r.t.Helper()
	ctx := r.t.Context()
	require.NoError(r.t, r.db.InOrg(ctx, r.org, func(tx *store.Tx) error {
		items = nil
		for _, a := range artefacts {
			id, err := tx.AddItem(ctx, r.conn, p.link, a, store.NotExempt, "tester")
			if err != nil {
				return err
			}
			items = append(items, id)
		}
		return nil
	}))
	return items
}

// state is where an item stands, and why.
func (r *deliveryRig) state(item string) (state, why string) {
	r.t.Helper()
	found := storetest.Query[[]string](r.t, r.db, "SELECT ARRAY[state, why] FROM push.outbox WHERE item_id = $1::uuid", item)
	require.Len(r.t, found, 1)
	return found[0][0], found[0][1]
}

// awaitState waits until an item stands there.
func (r *deliveryRig) awaitState(item string, within time.Duration, states ...cura.ItemState) {
	r.t.Helper()
	var state, why string
	require.Eventually(r.t, func() bool {
		state, why = r.state(item)
		return slices.Contains(states, cura.ItemState(state))
	}, within, 50*time.Millisecond, "it never came to be %v", states)
	r.t.Log(state, why)
}

// awaitIdle waits until no queue has anything left.
func (r *deliveryRig) awaitIdle(within time.Duration) {
	r.t.Helper()
	var waiting []string
	require.Eventually(r.t, func() bool {
		waiting = storetest.Query[string](r.t, r.db, "SELECT state || ': ' || why FROM push.outbox WHERE state IN ('queued', 'sending') LIMIT 10")
		return len(waiting) == 0
	}, within, 100*time.Millisecond, "these still wait: %q", &waiting)
}

// filed counts the notes of uniqueNote that the EHR has, by the artefact that their text names: it looks at nothing but what
// is stored there.
func (r *deliveryRig) filed() map[string]int {
	r.t.Helper()
	named := regexp.MustCompile(`This is note ([0-9a-f-]{36})\.`)
	found := map[string]int{}
	for _, raw := range r.ehr.Written("DocumentReference") {
		var d struct {
			Content []struct {
				Attachment struct {
					Data string `json:"data"`
				} `json:"attachment"`
			} `json:"content"`
		}
		require.NoError(r.t, json.Unmarshal(raw, &d))
		require.Len(r.t, d.Content, 1)
		text, err := base64.StdEncoding.DecodeString(d.Content[0].Attachment.Data)
		require.NoError(r.t, err)
		match := named.FindSubmatch(text)
		require.NotNil(r.t, match, "a note that nobody has pushed")
		found[string(match[1])]++
	}
	return found
}

// settlement is one item as outbox and ledger have it.
type settlement struct {
	link, artefact, state, why, delivery string
	sends                                int
}

// settlements lists all notes, in the order of their queues.
func (r *deliveryRig) settlements() (all []settlement) {
	r.t.Helper()
	for _, row := range storetest.Query[[]string](r.t, r.db, `
		SELECT ARRAY[o.link_id::text, o.artefact_id, o.state, o.why, coalesce(d.state, ''), coalesce(d.sends, 0)::text]
		FROM push.outbox o LEFT JOIN push.ledger d USING (org_id, item_id) WHERE o.kind = 'note' ORDER BY o.link_id, o.position`) {
		s := settlement{link: row[0], artefact: row[1], state: row[2], why: row[3], delivery: row[4]}
		_, err := fmt.Sscan(row[5], &s.sends)
		require.NoError(r.t, err)
		all = append(all, s)
	}
	return all
}

// requireOnce requires that every note is at the EHR once and known to be there, or isn't known to be there and waits for a
// person; and that each patient's came in the order in which they were queued. It gives how many there are in each state.
func (r *deliveryRig) requireOnce() map[string]int {
	r.t.Helper()
	filed, counts := r.filed(), map[string]int{}
	var queued []string
	for _, s := range r.settlements() {
		queued = append(queued, s.artefact)
		counts[s.state+"/"+s.delivery]++
		switch {
		case s.state == "delivered" && slices.Contains([]string{"confirmed", "already-present"}, s.delivery):
			require.Equal(r.t, 1, filed[s.artefact], "it is said to be delivered: %+v", s)
		case s.state == "review" && s.delivery == "unknown":
			require.LessOrEqual(r.t, filed[s.artefact], 1, "%+v", s)
		case s.state == "review" && s.delivery == "rejected":
			require.Zero(r.t, filed[s.artefact], "it is said not to have been written: %+v", s)
		default:
			require.Fail(r.t, "nobody knows what became of it", "%+v", s)
		}
	}
	for artefact := range filed {
		require.Contains(r.t, queued, artefact)
	}
	r.requireOrder(queued)
	return counts
}

// requireOrder requires that the writes that the EHR has processed came in the order of the queues: artefacts are listed queue
// by queue.
func (r *deliveryRig) requireOrder(artefacts []string) {
	r.t.Helper()
	place := map[string]int{}
	for i, a := range artefacts {
		place[a] = i
	}
	last := map[string]int{}
	records := map[string]map[string]bool{}
	for _, a := range r.ehr.Arrivals() {
		artefact, _, _ := strings.Cut(a.Identifier, ".")
		at, known := place[artefact]
		if !known || !a.Processed {
			continue
		}
		if records[artefact] == nil {
			records[artefact] = map[string]bool{}
			require.GreaterOrEqual(r.t, at, last[a.Patient], "a later one of the patient came before it")
			last[a.Patient] = at
		}
		records[artefact][a.ID] = true
	}
	for artefact, ids := range records {
		require.Len(r.t, slices.Collect(maps.Keys(ids)), 1, "the EHR has made two records of %s", artefact)
	}
}
