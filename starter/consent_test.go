package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/consent"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// changed reads what a change of consent came to.
func (w ward) changed(t *testing.T, args ...string) consentResult {
	t.Helper()
	var r consentResult
	w.reads(t, &r, append([]string{"consent"}, append(args, "--org", "st-mary")...)...)
	return r
}

// consents reads a patient's history.
func (w ward) consents(t *testing.T, patient string) consentView {
	t.Helper()
	var v consentView
	w.reads(t, &v, "consent", "show", patient)
	return v
}

// explains reads whether an item may leave.
func (w ward) explains(t *testing.T, patient, item string) explanation {
	t.Helper()
	var e explanation
	w.reads(t, &e, "consent", "explain", patient, item)
	return e
}

func TestConsentIsGrantedAndRevoked(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1") // it works while Temporal is down
	w := newWard(t, "--deliver", "note=fhir")
	ids := w.push(t, note("n-1", "phi-p1")+"\n"+note("n-2", "phi-p1")+"\n"+note("n-3", "phi-p2"))
	e := w.explains(t, "phi-p1", ids[0])
	require.False(t, e.Now.Allow)
	require.Equal(t, consent.NoConsent, e.Now.Code)
	require.Nil(t, e.Then)

	granted := w.changed(t, "grant", "phi-p1", "--until", "2999-01-01", "--kind", "note")
	require.EqualValues(t, 1, granted.Epoch)
	require.Equal(t, w.profiles["phi-p1"], granted.Profile)
	require.Len(t, granted.Consents, 1)
	require.True(t, w.explains(t, "phi-p1", ids[0]).Now.Allow)
	w.deliver(t, ids[0], cura.DeliveryConfirmed, cura.ItemDelivered, "phi-doc")

	revoked := w.changed(t, "revoke", string(w.profiles["phi-p1"]))
	require.EqualValues(t, 2, revoked.Epoch)
	require.Equal(t, 1, revoked.Cancelled, "what waited; what was delivered stays")
	require.Equal(t, granted.Consents, revoked.Consents)
	require.LessOrEqual(t, revoked.HaltMS, revoked.EffectiveMS)
	require.WithinDuration(t, time.Now(), revoked.EffectiveAt, time.Hour)
	require.Equal(t, cura.ItemCancelled, w.item(t, ids[1]).State)
	require.Equal(t, cura.ItemDelivered, w.item(t, ids[0]).State)
	require.Equal(t, cura.ItemQueued, w.item(t, ids[2]).State, "another patient's")
	e = w.explains(t, "phi-p1", ids[0])
	require.Equal(t, consent.NotActive, e.Now.Code)
	require.NotNil(t, e.Then)
	require.NotEmpty(t, e.Now.Rules)

	again := w.starter(t, "consent", "revoke", "phi-p1", "--org", "st-mary")
	require.Equal(t, exitFailed, again.code)
	require.Contains(t, again.err, "nothing to revoke")

	// A new consent doesn't revive what was cancelled; a person may try it again.
	w.changed(t, "grant", "phi-p1")
	require.Equal(t, cura.ItemCancelled, w.item(t, ids[1]).State)
	w.does(t, "push", "retry", ids[1])

	v := w.consents(t, "phi-p1")
	require.EqualValues(t, 3, v.Head.Epoch)
	require.False(t, v.Head.Halted)
	require.Len(t, v.Entries, 3)
	require.Equal(t, []string{"active", "inactive", "active"}, []string{v.Entries[0].Status, v.Entries[1].Status, v.Entries[2].Status})
	require.Equal(t, []bool{false, true, true}, []bool{v.Entries[0].Standing, v.Entries[1].Standing, v.Entries[2].Standing})
	require.Equal(t, time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC), v.Entries[0].Until.UTC())
	require.Len(t, v.Halts, 3)
	require.NotNil(t, v.Halts[0].EffectiveAt)
	for _, args := range [][]string{{"consent", "show", "phi-p1"}, {"consent", "explain", "phi-p1", ids[0]}} {
		got := w.starter(t, args...)
		require.Equal(t, exitDone, got.code, got.err)
		for _, phi := range []string{"phi-", "Secret", "Osei", "Quillfeather"} {
			require.NotContains(t, got.out+got.err, phi)
		}
	}
	require.Equal(t, []string{"asserted:pat success", "asserted:pat success", "asserted:pat success"}, w.audited(t, "consent.changed"))
	require.Equal(t, []bool{true}, storetest.Query[bool](t, w.db, "SELECT DISTINCT (details ->> 'asserted')::boolean FROM audit.records WHERE kind = 'consent.changed'"))
	require.NotEmpty(t, w.audited(t, "consent.viewed"))
}

func TestOnlyTheNamedConsentIsRevoked(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	first := w.changed(t, "grant", "phi-p1", "--kind", "note").Consents[0]
	second := w.changed(t, "grant", "phi-p1", "--kind", "diagnosis").Consents[0]
	require.Equal(t, []string{second}, w.changed(t, "revoke", "phi-p1", "--consent", second).Consents)
	for _, id := range []string{second, uuid.NewString()} {
		got := w.starter(t, "consent", "revoke", "phi-p1", "--org", "st-mary", "--consent", id)
		require.Equal(t, exitFailed, got.code)
		require.Contains(t, got.err, "nothing to revoke")
	}
	require.Equal(t, []string{first}, w.changed(t, "revoke", "phi-p1").Consents)
}

// TestTheHospitalsConsentsAreOverruled: Cura can't withdraw them, so it denies; the next grant takes that back.
func TestTheHospitalsConsentsAreOverruled(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := w.push(t, note("n-1", "phi-p1"))[0]
	w.pullConsent(t, "phi-c1", "phi-p1", permit())
	require.True(t, w.explains(t, "phi-p1", id).Now.Allow)
	denial := w.changed(t, "revoke", "phi-p1").Consents
	require.Len(t, denial, 1)
	require.Equal(t, consent.Denied, w.explains(t, "phi-p1", id).Now.Code)
	again := w.starter(t, "consent", "revoke", "phi-p1", "--org", "st-mary")
	require.Equal(t, exitFailed, again.code)
	require.Contains(t, again.err, "nothing to revoke")

	got := w.starter(t, "consent", "grant", "phi-p1", "--org", "st-mary", "--kind", "note", "-o", "json")
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.err, "1 consents of the hospital's count again")
	var r consentResult
	require.NoError(t, json.Unmarshal([]byte(got.out), &r))
	require.Equal(t, denial[0], r.Consents[0], "the denial is withdrawn")
	require.True(t, w.explains(t, "phi-p1", id).Now.Allow)
	require.Len(t, w.changed(t, "revoke", "phi-p1").Consents, 2, "the grant is withdrawn, the hospital's overruled")
	require.Equal(t, consent.Denied, w.explains(t, "phi-p1", id).Now.Code)
}

// TestWhatARevocationFinds: what permits nothing needs no revocation.
func TestWhatARevocationFinds(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	entry := func(source string, change func(*store.ConsentEntry)) store.ConsentEntry {
		e := store.ConsentEntry{ID: 1, Key: source, Source: source, Consent: permit()}
		if source == "cura" {
			e.ConsentID = "c"
		}
		if change != nil {
			change(&e)
		}
		return e
	}
	for name, tc := range map[string]struct {
		log  []store.ConsentEntry
		made []string // statuses and root types
	}{
		"nothing":            {nil, nil},
		"a grant":            {[]store.ConsentEntry{entry("cura", nil)}, []string{"inactive permit"}},
		"the hospital's":     {[]store.ConsentEntry{entry("ehr", nil)}, []string{"active deny"}},
		"both":               {[]store.ConsentEntry{entry("cura", nil), entry("ehr", nil)}, []string{"inactive permit", "active deny"}},
		"one that has ended": {[]store.ConsentEntry{entry("cura", func(e *store.ConsentEntry) { e.Consent = consent.Grant(consent.Terms{Until: now}) })}, nil},
		"one to come":        {[]store.ConsentEntry{entry("cura", func(e *store.ConsentEntry) { e.Consent = consent.Grant(consent.Terms{From: now.AddDate(1, 0, 0)}) })}, []string{"inactive permit"}},
		"one in error":       {[]store.ConsentEntry{entry("ehr", func(e *store.ConsentEntry) { e.EnteredInError = true })}, nil},
		"about research":     {[]store.ConsentEntry{entry("ehr", func(e *store.ConsentEntry) { e.Consent.Scope.Codings[0].Code = "research" })}, nil},
		"a denial":           {[]store.ConsentEntry{entry("ehr", func(e *store.ConsentEntry) { e.Consent = consent.Revocation(now) })}, nil},
		"denied by its policy rule": {[]store.ConsentEntry{entry("ehr", func(e *store.ConsentEntry) {
			e.Consent.RootType, e.Consent.Provision, e.Consent.PolicyRule.Codings[0].Code = "", nil, "OPTOUT"
		})}, nil},
		"a denial with exceptions": {[]store.ConsentEntry{entry("ehr", func(e *store.ConsentEntry) {
			e.Consent.Provision = json.RawMessage(`{"type":"deny","provision":[{"type":"permit"}]}`)
		})}, []string{"active deny"}},
		"overruled already": {[]store.ConsentEntry{entry("ehr", nil), entry("cura", func(e *store.ConsentEntry) { e.Consent = consent.Revocation(now) })}, nil},
	} {
		entries, err := revocation(tc.log, "", now)
		var made []string
		for _, e := range entries {
			made = append(made, e.Entry.Status+" "+e.Entry.RootType)
		}
		require.Equal(t, tc.made, made, name)
		require.Equal(t, len(tc.made) == 0, err != nil, name)
	}
}

func TestConsentsThatCantBeTaken(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	file := func(pairs ...string) string {
		return written(t, strings.NewReplacer(pairs...).Replace(theConsent))
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"unknown patient":    {[]string{"grant", "phi-p9"}, exitFailed, "the org has no such patient"},
		"nobody":             {[]string{"revoke"}, exitUsage, "takes one argument, the patient"},
		"revoke of nothing":  {[]string{"revoke", "phi-p1"}, exitFailed, "nothing to revoke"},
		"ended":              {[]string{"grant", "phi-p1", "--until", "2020-01-01"}, exitUsage, "has ended already"},
		"end before start":   {[]string{"grant", "phi-p1", "--from", "2998-01-02", "--until", "2998-01-01"}, exitUsage, "ends before it begins"},
		"no time":            {[]string{"grant", "phi-p1", "--from", "soon"}, exitUsage, "--from is neither a date"},
		"kind":               {[]string{"grant", "phi-p1", "--kind", "letter"}, exitUsage, "the kinds are note"},
		"label":              {[]string{"grant", "phi-p1", "--label", "HAPPY"}, exitUsage, "the labels are R, V"},
		"purpose":            {[]string{"grant", "phi-p1", "--purpose", "FUN"}, exitUsage, "the purposes are TREAT"},
		"file and terms":     {[]string{"grant", "phi-p1", "--file", file(), "--kind", "note"}, exitUsage, "give one of the two"},
		"file not there":     {[]string{"grant", "phi-p1", "--file", file() + "-not"}, exitUsage, "no such file"},
		"wrong type":         {[]string{"grant", "phi-p1", "--file", file(`"Consent"`, `"Patient"`)}, exitUsage, "isn't a Consent"},
		"no JSON":            {[]string{"grant", "phi-p1", "--file", written(t, "{")}, exitUsage, "isn't JSON"},
		"invalid R4":         {[]string{"grant", "phi-p1", "--file", file(`"scope"`, `"scoop"`)}, exitUsage, "not a valid R4 resource"},
		"modifier extension": {[]string{"grant", "phi-p1", "--file", file(`"scope"`, `"modifierExtension":[{"url":"urn:x","valueBoolean":true}],"scope"`)}, exitUsage, "not a valid R4 resource"},
		"another patient's":  {[]string{"grant", "phi-p1", "--file", file("phi-p1", "phi-p2")}, exitFailed, "another patient"},
		"another server's":   {[]string{"grant", "phi-p1", "--file", file("Patient/phi-p1", "https://elsewhere.example/fhir/Patient/phi-p1")}, exitFailed, "another patient"},
		"no patient":         {[]string{"grant", "phi-p1", "--file", file(`"patient":{"reference":"Patient/phi-p1"},`, "")}, exitUsage, "patient"},
		"not active":         {[]string{"grant", "phi-p1", "--file", file(`"active"`, `"draft"`)}, exitUsage, "its status isn't active"},
		"file has ended":     {[]string{"grant", "phi-p1", "--file", file("2999", "2020")}, exitUsage, "has ended already"},
		"file ends early":    {[]string{"grant", "phi-p1", "--file", file(`"end"`, `"start":"2999-05-01","end"`, `"2999-01-01"`, `"2999-01-01"`)}, exitUsage, "ends before it begins"},
		"denies":             {[]string{"grant", "phi-p1", "--file", file(`"permit"`, `"deny"`)}, exitUsage, "denies everything"},
		"research":           {[]string{"grant", "phi-p1", "--file", file("patient-privacy", "research")}, exitUsage, "isn't about privacy"},
	} {
		got := w.starter(t, append(append([]string{"consent"}, tc.args...), "--org", "st-mary")...)
		require.Equal(t, tc.code, got.code, "%s: %s", name, got.err)
		require.Contains(t, got.err, tc.says, name)
		require.NotContains(t, got.err, "phi-", name)
	}
	without := w.starter(t, "consent", "grant", "phi-p1")
	require.Equal(t, exitUsage, without.code)
	require.Contains(t, without.err, "needs --org")
	require.Empty(t, storetest.Query[int64](t, w.db, "SELECT entry_id FROM cura.consent_log"))
	require.Empty(t, w.audited(t, "consent.changed"))
}

// theConsent is a Consent as a hospital's form gives it.
const theConsent = `{"resourceType":"Consent","status":"active",
	"scope":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"patient-privacy"}]},
	"category":[{"coding":[{"system":"http://loinc.org","code":"59284-0"}]}],
	"patient":{"reference":"Patient/phi-p1"},"dateTime":"2026-01-01",
	"policyRule":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"OPTIN"}]},
	"provision":{"type":"permit","period":{"end":"2999-01-01"}}}`

func TestAConsentIsTakenFromAFile(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := w.push(t, note("n-1", "phi-p1"))[0]
	r := w.changed(t, "grant", "phi-p1", "--file", written(t, theConsent))
	require.Len(t, r.Consents, 1)
	require.True(t, w.explains(t, "phi-p1", id).Now.Allow)
	got := starterWith(t, strings.ReplaceAll(theConsent, "Patient/phi-p1", "https://ehr.st-mary.example/fhir/R4/Patient/phi-p1"),
		"consent", "grant", "phi-p1", "--org", "st-mary", "--file", "-", "--database-url", w.db.URL)
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.out, "Epoch      2")
}

func TestPatientsAreFoundAcrossOrgs(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := w.push(t, note("n-1", "phi-p1"))[0]
	w.does(t, "org", "add", "st-joseph")
	require.Equal(t, "st-mary", w.consents(t, "phi-p1").Org)
	for says, args := range map[string][]string{
		"there is no such patient": {"consent", "show", "phi-p1", "--org", "st-joseph"},
		"there is no org":          {"consent", "show", "phi-p1", "--org", "nope"},
		"the org has no such":      {"consent", "revoke", "phi-p1", "--org", "st-joseph"},
		"it is another patient's":  {"consent", "explain", "phi-p2", id},
		"the org has no item":      {"consent", "explain", "phi-p1", uuid.NewString()},
	} {
		got := w.starter(t, args...)
		require.Equal(t, exitFailed, got.code, got.err)
		require.Contains(t, got.err, says)
	}
	require.Equal(t, exitUsage, w.starter(t, "consent", "explain", "phi-p1").code)
	require.Contains(t, w.does(t, "consent", "show", "phi-p2"), "No consent is recorded")
}

// TestAWorkerThatIsQuickerIsBelieved: who settles a change doesn't matter.
func TestAWorkerThatIsQuickerIsBelieved(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	org := store.Org{ID: w.l.Org, Name: "st-mary"}
	s := &session{store: w.db.Store, actor: "asserted:pat"}
	profile := w.profiles["phi-p1"]
	w.changed(t, "grant", "phi-p1")
	w.push(t, note("n-1", "phi-p1"))
	w.changed(t, "revoke", "phi-p1")
	settled, err := s.settleConsent(t.Context(), org, profile)
	require.NoError(t, err)
	require.EqualValues(t, 2, settled.Epoch)
	require.Equal(t, 1, settled.Cancelled)
	require.WithinDuration(t, time.Now(), settled.EffectiveAt, time.Hour)
}

// TestAChangeThatIsInterruptedStands: the halt was committed, and whoever comes next makes it effective.
func TestAChangeThatIsInterruptedStands(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.changed(t, "grant", "phi-p1")
	id := w.push(t, note("n-1", "phi-p1"))[0]
	item := w.item(t, id)
	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		if err := tx.PutIntent(t.Context(), store.Intent{Item: item, Resource: "DocumentReference", ConsentEpoch: 1}); err != nil {
			return err
		}
		return tx.MarkSent(t.Context(), item, time.Hour) // its sender is gone
	}))
	s := &session{store: w.db.Store, actor: "asserted:pat"}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.changeConsent(ctx, store.Org{ID: w.l.Org, Name: "st-mary"}, item.Profile, time.Now(), func(log []store.ConsentEntry) ([]store.ConsentChange, error) {
		entries, err := revocation(log, "", time.Now())
		time.AfterFunc(time.Second, cancel)
		return signedBy(entries, item.Profile, s.actor, cura.RoleAdmin), err
	})
	require.ErrorContains(t, err, "nothing more is let through")
	require.True(t, w.consents(t, "phi-p1").Head.Halted)
	require.Contains(t, w.does(t, "consent", "show", "phi-p1"), "nothing is sent until it is effective")
}

func TestTheQueuesOfAPatientAreWoken(t *testing.T) {
	t.Parallel()
	f := &temporalFake{}
	links := []store.Link{{ID: "l-1", Connection: "c-1"}, {ID: "l-2", Connection: "c-2"}}
	require.NoError(t, wakeQueues(t.Context(), f, links), "none runs")
	f.backfill = true
	require.NoError(t, wakeQueues(t.Context(), f, links))
	require.Equal(t, []string{"delivery/c-1/l-1 consent-revoked", "delivery/c-2/l-2 consent-revoked"}, f.signals)
}
