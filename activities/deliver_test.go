package activities_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/internal/config"
	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/gate"
	"github.com/cura-health/ehr-sync/internal/profile"
	"github.com/cura-health/ehr-sync/internal/sandbox"
	"github.com/cura-health/ehr-sync/internal/store"
)

// pushing is a hospital whose patients have been read, and one of them with an encounter, who has granted consent.
type pushing struct {
	*hospital

	link, patient, encounter string
	profile                  cura.ProfileID
}

func newPushing(t *testing.T, o options) *pushing {
	t.Helper()
	o.types = []cura.ResourceType{cura.Patient, cura.Encounter}
	o.config = func(c *config.Config) { c.SendGrace, c.RetryAttempts = 2*time.Second, 12 }
	p := &pushing{hospital: newHospital(t, o)}
	require.NoError(t, p.db.OpenSends(t.Context(), 4))
	p.env.RegisterActivity(p.a.Deliver)
	kinds := cura.ArtefactKinds()
	routes := map[cura.ArtefactKind]cura.Route{}
	for _, k := range kinds {
		routes[k] = cura.RouteFHIR
	}
	vendor, err := profile.Builtin(p.connection(t).EHRProfile)
	require.NoError(t, err)
	p.edit(t, func(c *cura.Connection) {
		c.Deliveries = routes
		c.Scopes = append(c.Scopes, vendor.WriteScopes(kinds)...)
	})
	for _, typ := range []cura.ResourceType{cura.Patient, cura.Encounter} {
		_, err := p.pull(t, activities.PullInput{Run: p.begin(t, cura.RunBackfill), Type: typ, Full: true})
		require.NoError(t, err)
	}
	encounters := p.source(t)["Encounter"]
	p.encounter = slices.Sorted(maps.Keys(encounters))[0]
	text := string(encounters[p.encounter])
	_, rest, _ := strings.Cut(text, `"Patient/`)
	p.patient, _, _ = strings.Cut(rest, `"`)
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error {
		p.link, p.profile, err = tx.LinkOf(t.Context(), p.target.Connection, p.patient)
		return err
	}))
	p.change(t, consent.Grant(consent.Terms{}))
	return p
}

// edit changes the settings of the connection.
func (p *pushing) edit(t *testing.T, change func(*cura.Connection)) {
	t.Helper()
	c := p.connection(t).Connection
	change(&c)
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error { return tx.EditConnection(t.Context(), c, "test") }))
}

// change makes a consent in Cura, and settles it.
func (p *pushing) change(t *testing.T, entry cura.ConsentEntry) {
	t.Helper()
	require.NoError(t, p.db.EnsureHead(t.Context(), p.target.Org, p.profile))
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error {
		_, err := tx.ChangeConsent(t.Context(), store.ConsentChange{Profile: p.profile, Entry: entry, Actor: "officer", Role: cura.RoleConsentOfficer})
		return err
	}))
	settled, err := p.db.SettleConsent(t.Context(), p.target.Org, p.profile, gate.Permits)
	require.NoError(t, err)
	require.Positive(t, settled.Epoch)
	require.False(t, settled.EffectiveAt.IsZero())
}

func (p *pushing) note(change ...func(*cura.Artefact)) cura.Artefact {
	a := cura.Artefact{
		Kind: cura.Note, ID: uuid.NewString(), Version: 1, Author: cura.Author{Name: "Ada", Role: cura.RoleClinician}, EncounterEHRID: p.encounter,
		AuthoredAt: time.Now().Add(-time.Minute),
		Note:       &cura.NoteContent{Type: "11506-3", Title: "Progress note", ContentType: "text/plain", Text: "All is well. " + uuid.NewString()},
	}
	for _, c := range change {
		c(&a)
	}
	return a
}

func (p *pushing) diagnosis(category string) cura.Artefact {
	return p.note(func(a *cura.Artefact) {
		a.Kind, a.Note = cura.Diagnosis, nil
		a.Diagnosis = &cura.DiagnosisContent{
			Code:     cura.Concept{Text: "Cold", Codings: []cura.Coding{{System: "http://hl7.org/fhir/sid/icd-10-cm", Code: "J06.9", Display: "Cold"}}},
			Category: category, ClinicalStatus: "active", VerificationStatus: "confirmed",
		}
	})
}

// push queues an artefact and delivers until the queue is empty, and gives what became of it.
func (p *pushing) push(t *testing.T, a cura.Artefact, exempt store.Exempt) store.OutboxItem {
	t.Helper()
	var id string
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error {
		var err error
		id, err = tx.AddItem(t.Context(), p.target.Connection, p.link, a, exempt, "test")
		return err
	}))
	p.deliver(t)
	return p.item(t, id)
}

// deliver calls the activity as the workflow does, until the queue is empty.
func (p *pushing) deliver(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		result, err := run[activities.DeliverResult](t, p.hospital, p.a.Deliver, activities.DeliverInput{Target: p.target, Link: p.link})
		require.NoError(t, err)
		return result.Idle
	}, time.Minute, 20*time.Millisecond)
}

func (p *pushing) item(t *testing.T, id string) store.OutboxItem {
	t.Helper()
	var item store.OutboxItem
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error {
		var err error
		item, err = tx.Item(t.Context(), id)
		return err
	}))
	return item
}

func TestWhatLeavesAndWhatDoesnt(t *testing.T) {
	t.Parallel()
	p := newPushing(t, options{})
	coder := func(a *cura.Artefact) { a.Author.Role = cura.RoleCoder }
	tests := []struct {
		name     string
		artefact cura.Artefact
		state    cura.ItemState
		why      string
	}{
		{"a note", p.note(), cura.ItemDelivered, ""},
		{"a diagnosis", p.diagnosis("encounter-diagnosis"), cura.ItemDelivered, ""},
		{"a coder's note", p.note(coder), cura.ItemDenied, "role, coder, may not author a note"},
		{"psychotherapy", p.note(func(a *cura.Artefact) { a.Labels = []string{"PSYTHPN"} }), cura.ItemDenied, "sychotherapy"},
		{"of an encounter that the EHR doesn't know", p.note(func(a *cura.Artefact) { a.EncounterEHRID = "unknown" }), cura.ItemRejected, "422"},
	}
	for _, tc := range tests {
		item := p.push(t, tc.artefact, store.NotExempt)
		require.Equal(t, tc.state, item.State, "%s: %s", tc.name, item.Why)
		require.Contains(t, item.Why, tc.why, tc.name)
		if tc.state == cura.ItemDelivered {
			require.Equal(t, cura.DeliveryConfirmed, item.Delivery.State)
			require.NotNil(t, item.Delivery.ConsentEntry, "the proof is kept")
			require.NotEmpty(t, item.Delivery.EHRID)
		}
	}
	require.Len(t, p.ehr.Written("DocumentReference"), 1)
	require.Len(t, p.ehr.Written("Condition"), 1)

	p.edit(t, func(c *cura.Connection) {
		c.Deliveries[cura.Note], c.Deliveries[cura.Diagnosis] = cura.RouteManual, cura.RouteOff
	})
	require.Equal(t, cura.ItemManual, p.push(t, p.note(), store.NotExempt).State)
	off := p.push(t, p.diagnosis("problem-list-item"), store.NotExempt)
	require.Equal(t, cura.ItemDenied, off.State)
	require.Contains(t, off.Why, "--deliver diagnosis=fhir")
}

func TestAfterARevocationOnlyWhatIsExemptLeaves(t *testing.T) {
	t.Parallel()
	p := newPushing(t, options{})
	first := p.note()
	require.Equal(t, cura.ItemDelivered, p.push(t, first, store.NotExempt).State)
	var queued []string
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error {
		for range 3 {
			id, err := tx.AddItem(t.Context(), p.target.Connection, p.link, p.note(), store.NotExempt, "test")
			if err != nil {
				return err
			}
			queued = append(queued, id)
		}
		return nil
	}))
	before := len(p.ehr.Arrivals())
	p.change(t, consent.Revocation(time.Now()))
	for _, id := range queued {
		item := p.item(t, id)
		require.Equal(t, cura.ItemCancelled, item.State)
		require.Contains(t, item.Why, "consent was withdrawn")
	}
	require.Equal(t, cura.ItemDenied, p.push(t, p.note(), store.NotExempt).State)
	for _, a := range p.ehr.Arrivals()[before:] {
		require.Equal(t, "Consent", a.Type, "nothing but the event that tells of it")
	}

	retraction := p.push(t, cura.Artefact{
		Kind: cura.Note, ID: first.ID, Version: 2, Replaces: 1, Retracts: true, Author: first.Author, AuthoredAt: time.Now(), EncounterEHRID: p.encounter,
	}, store.ExemptRetraction)
	require.Equal(t, cura.ItemDelivered, retraction.State, retraction.Why)
	require.Contains(t, string(p.ehr.Written("DocumentReference")[0]), "entered-in-error")

	// A new consent doesn't revive what was cancelled.
	p.change(t, consent.Grant(consent.Terms{}))
	p.deliver(t)
	for _, id := range queued {
		require.Equal(t, cura.ItemCancelled, p.item(t, id).State)
	}
}

func TestAnUnknownOutcomeIsLookedUp(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, vendor string
		writes       sandbox.WriteFaults
		state        cura.ItemState
		delivery     cura.DeliveryState
		written      int
	}{
		{"found by its identifier", "", sandbox.WriteFaults{ErrorAfterShare: 1}, cura.ItemDelivered, cura.DeliveryConfirmed, 1},
		{"found by what it says", "oracle", sandbox.WriteFaults{ErrorAfterShare: 1}, cura.ItemDelivered, cura.DeliveryConfirmed, 1},
		{"not there, and nobody knows", "oracle", sandbox.WriteFaults{ResetBeforeShare: 1}, cura.ItemReview, cura.DeliveryUnknown, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := options{sandbox: sandbox.Config{Vendor: tc.vendor}, profile: tc.vendor, roster: tc.vendor != ""}
			p := newPushing(t, o)
			faults := p.ehr.Faults()
			faults.Writes = tc.writes
			require.NoError(t, p.ehr.SetFaults(faults))
			end := time.Now()
			item := p.push(t, p.note(func(a *cura.Artefact) { a.Note.Start, a.Note.End = end.Add(-time.Hour), end }), store.NotExempt)
			require.Equal(t, tc.state, item.State, item.Why)
			require.Equal(t, tc.delivery, item.Delivery.State)
			require.Len(t, p.ehr.Written("DocumentReference"), tc.written)
		})
	}
}

func TestAServerWithConditionalCreateIsSentItAgain(t *testing.T) {
	t.Parallel()
	p := newPushing(t, options{})
	require.NoError(t, p.ehr.SetFaults(sandbox.Faults{Writes: sandbox.WriteFaults{ResetBeforeShare: 0.4}}))
	for range 5 {
		item := p.push(t, p.note(), store.NotExempt)
		require.Equal(t, cura.ItemDelivered, item.State, item.Why)
	}
	require.Len(t, p.ehr.Written("DocumentReference"), 5)
}

func TestAKillSwitchHoldsPushes(t *testing.T) {
	t.Parallel()
	p := newPushing(t, options{})
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error {
		fresh, err := tx.SetHalt(t.Context(), store.Halt{What: store.HaltPushes, Actor: "ops", Reason: "incident"})
		require.True(t, fresh)
		if err != nil {
			return err
		}
		_, err = tx.AddItem(t.Context(), p.target.Connection, p.link, p.note(), store.NotExempt, "test")
		return err
	}))
	result, err := run[activities.DeliverResult](t, p.hospital, p.a.Deliver, activities.DeliverInput{Target: p.target, Link: p.link})
	require.NoError(t, err)
	require.False(t, result.Idle)
	require.Positive(t, result.Wait)
	require.Contains(t, result.Why, "halted by ops")
	require.Empty(t, p.ehr.Written("DocumentReference"))
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error {
		lifted, err := tx.LiftHalt(t.Context(), "", store.HaltPushes, "ops")
		require.True(t, lifted)
		return err
	}))
	p.deliver(t)
	require.Len(t, p.ehr.Written("DocumentReference"), 1)
}

func TestWhatAVendorDoesntTakeIsDeniedInWords(t *testing.T) {
	t.Parallel()
	p := newPushing(t, options{sandbox: sandbox.Config{Vendor: "epic"}, profile: "epic", roster: true})
	require.Equal(t, cura.ItemDelivered, p.push(t, p.note(), store.NotExempt).State)
	for name, tc := range map[string]struct {
		artefact cura.Artefact
		why      string
	}{
		"a note without an encounter": {p.note(func(a *cura.Artefact) { a.EncounterEHRID = "" }), "without its encounter"},
		"an encounter's diagnosis":    {p.diagnosis("encounter-diagnosis"), "takes no diagnosis of the category"},
		"a procedure": {p.note(func(a *cura.Artefact) {
			a.Kind, a.Note = cura.Procedure, nil
			a.Procedure = &cura.ProcedureContent{Code: cura.Concept{Codings: []cura.Coding{{System: "http://www.ama-assn.org/go/cpt", Code: "99213"}}}, Status: "completed", Performed: "2026-01-02"}
		}), "procedure=manual"},
	} {
		item := p.push(t, tc.artefact, store.NotExempt)
		require.Equal(t, cura.ItemDenied, item.State, name)
		require.Contains(t, item.Why, tc.why, name)
	}
	problem := p.diagnosis("problem-list-item")
	problem.Diagnosis.VerificationStatus = "provisional"
	held := p.push(t, problem, store.NotExempt)
	require.Equal(t, cura.ItemHeld, held.State, held.Why)
}

// TestNothingIsWrittenToAPatientWhoIsBeingMerged, before a person has decided and after; what waits in the queue then goes to the
// patient whom the EHR goes on with.
func TestNothingIsWrittenToAPatientWhoIsBeingMerged(t *testing.T) {
	t.Parallel()
	p := newPushing(t, options{})
	others := slices.DeleteFunc(p.patients(t), func(id string) bool { return id == p.patient })
	var patient map[string]any
	require.NoError(t, json.Unmarshal(p.source(t)["Patient"][p.patient], &patient))
	patient["active"] = false
	patient["link"] = []any{map[string]any{"type": "replaced-by", "other": map[string]any{"reference": "Patient/" + others[0]}}}
	raw, err := json.Marshal(patient)
	require.NoError(t, err)
	require.NoError(t, p.ehr.Put(raw))
	_, err = p.pull(t, activities.PullInput{Run: p.begin(t, cura.RunIncremental), Type: cura.Patient})
	require.NoError(t, err)

	denied := p.push(t, p.note(), store.NotExempt)
	require.Equal(t, cura.ItemDenied, denied.State)
	require.Contains(t, denied.Why, "(merge)")
	require.Empty(t, p.ehr.Written("DocumentReference"))

	var waiting string
	require.NoError(t, p.db.InOrg(t.Context(), p.target.Org, func(tx *store.Tx) error {
		if waiting, err = tx.AddItem(t.Context(), p.target.Connection, p.link, p.note(), store.NotExempt, "test"); err != nil {
			return err
		}
		open, err := tx.Reviews(t.Context(), store.ReviewFilter{Open: true})
		require.NoError(t, err)
		require.Len(t, open, 1)
		_, err = tx.DecideReview(t.Context(), open[0].ID, store.ReviewChoice{Decision: cura.DecideMerge}, "jo")
		return err
	}))
	_, err = p.pull(t, activities.PullInput{Run: p.begin(t, cura.RunIncremental), Type: cura.Patient})
	require.NoError(t, err, "it applies what was decided")
	item := p.item(t, waiting)
	require.Equal(t, others[0], item.PatientEHRID)
	_, err = p.db.SettleConsent(t.Context(), p.target.Org, item.Profile, gate.Permits)
	require.NoError(t, err)
	p.link = item.Link
	p.deliver(t)
	item = p.item(t, waiting)
	require.Equal(t, cura.ItemDenied, item.State)
	require.Contains(t, item.Why, "no consent", "what was permitted for the one isn't for the other")
	require.Empty(t, p.ehr.Written("DocumentReference"))
}
