package main

import (
	"crypto/sha256"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// ward is a desk whose connection st-mary/main has been read: the patients phi-p1 and phi-p2 with the encounters phi-e1 and
// phi-e2.
type ward struct {
	desk

	l        store.Listed
	profiles map[string]cura.ProfileID
}

func newWard(t *testing.T, settings ...string) ward {
	t.Helper()
	w := ward{desk: newDesk(t), profiles: map[string]cura.ProfileID{}}
	w.addMain(t, settings...)
	var err error
	w.l, err = w.db.FindConnection(t.Context(), "st-mary/main")
	require.NoError(t, err)
	var patients, encounters []store.Item
	for _, n := range []string{"1", "2"} {
		p := pulledItem("phi-p"+n, cura.ProfileID(uuid.NewString()))
		p.MatchedBy = "new"
		p.Record = cura.Record{Type: cura.Patient, EHRID: p.EHRID, Profile: &cura.Profile{Name: &cura.Name{Display: "Quillfeather " + n, Family: "Quillfeather"}}}
		w.profiles[p.EHRID] = p.Profile
		patients = append(patients, p)
		e := pulledItem("phi-e"+n, p.Profile)
		e.Record = cura.Record{Type: cura.Encounter, EHRID: e.EHRID, PatientEHRID: p.EHRID, Visit: &cura.Visit{Status: "finished"}}
		encounters = append(encounters, e)
	}
	w.pull(t, cura.Patient, patients...)
	w.pull(t, cura.Encounter, encounters...)
	return w
}

func pulledItem(ehrID string, profile cura.ProfileID) store.Item {
	raw := []byte(uuid.NewString())
	return store.Item{EHRID: ehrID, Hash: sha256.Sum256(raw), Raw: raw, RawBytes: int64(len(raw)), Outcome: store.Stored, Profile: profile}
}

// pull writes a page as a run does.
func (w ward) pull(t *testing.T, typ cura.ResourceType, items ...store.Item) {
	t.Helper()
	pass := store.Pass{Connection: w.l.Connection, Type: typ, Run: uuid.NewString()}
	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		if err := tx.StartRun(t.Context(), store.Run{ID: pass.Run, Connection: pass.Connection, Kind: cura.RunBackfill, WorkflowID: "test"}); err != nil {
			return err
		}
		leased, err := tx.TakeLease(t.Context(), pass)
		if err != nil {
			return err
		}
		_, err = tx.ApplyPage(t.Context(), leased, "1", items, store.Advance{Candidate: time.Now()})
		return err
	}))
}

// pullConsent is a Consent of the hospital's about a patient.
func (w ward) pullConsent(t *testing.T, ehrID, patient string, entry cura.ConsentEntry) {
	t.Helper()
	it := pulledItem(ehrID, w.profiles[patient])
	it.Record = cura.Record{Type: cura.Consent, EHRID: ehrID, PatientEHRID: patient, Consent: &entry}
	w.pull(t, cura.Consent, it)
}

// permit is a consent to everything.
func permit() cura.ConsentEntry { return consent.Grant(consent.Terms{}) }

// push queues what text says and gives the items' ids.
func (w ward) push(t *testing.T, text string) []string {
	t.Helper()
	var q queued
	w.reads(t, &q, "push", "add", "main", written(t, text))
	return q.Items
}

// reads runs a command line that must succeed and reads its JSON.
func (d desk) reads(t *testing.T, into any, args ...string) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(d.does(t, append(args, "-o", "json")...)), into))
}

// note is a note of a patient as push add takes it, without line ends.
func note(artefact, patient string) string {
	return `{"patient":"` + patient + `","kind":"note","artefact":"` + artefact + `","author":{"name":"Dr. Osei","role":"clinician"},` +
		`"encounter":"phi-e` + patient[len(patient)-1:] + `","note":{"type":"11506-3","title":"Visit","content_type":"text/plain","text":"Secret words"}}`
}

// item reads one item.
func (w ward) item(t *testing.T, id string) store.OutboxItem {
	t.Helper()
	var item store.OutboxItem
	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		var err error
		item, err = tx.Item(t.Context(), id)
		return err
	}))
	return item
}

// deliver takes an item through the ledger as a worker does, up to a state.
func (w ward) deliver(t *testing.T, id string, to cura.DeliveryState, state cura.ItemState, ehrID string) {
	t.Helper()
	item := w.item(t, id)
	require.NoError(t, w.db.EnsureHead(t.Context(), w.l.Org, item.Profile))
	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		if err := tx.PutIntent(t.Context(), store.Intent{Item: item, Resource: "DocumentReference"}); err != nil || to == cura.DeliveryIntent {
			return err
		}
		if err := tx.MarkSent(t.Context(), item, 1); err != nil || to == cura.DeliverySent {
			return err
		}
		return tx.Settle(t.Context(), item, to, store.Receipt{EHRID: ehrID, Status: 201}, state, "as the test has it")
	}))
}

// audited are the audit records of a kind: actor and outcome.
func (d desk) audited(t *testing.T, kind string) []string {
	t.Helper()
	return storetest.Query[string](t, d.db, "SELECT actor || ' ' || outcome FROM audit.records WHERE kind = '"+kind+"' ORDER BY seq")
}
