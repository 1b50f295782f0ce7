package main

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

func TestArtefactsAreQueuedFromAFile(t *testing.T) {
	t.Parallel()
	w := newWard(t, "--deliver", "note=fhir")
	var q queued
	w.reads(t, &q, "push", "add", "st-mary/main", written(t, note("n-1", "phi-p1")+"\n"+note("n-2", "phi-p2")+"\n"))
	require.Equal(t, "st-mary/main", q.Connection)
	require.Len(t, q.Items, 2)
	first := w.item(t, q.Items[0])
	require.Equal(t, 1, first.Artefact.Version, "the default")
	require.WithinDuration(t, time.Now(), first.Artefact.AuthoredAt, time.Hour, "the default")
	require.Equal(t, w.profiles["phi-p1"], first.Profile)
	require.Equal(t, cura.ItemQueued, first.State)

	// A patient can be named by the profile and by the link, too, and a file is one object over many lines as well.
	pretty := strings.NewReplacer(`"phi-p1"`, `"`+string(w.profiles["phi-p1"])+`"`, "n-1", "n-3", ",", ",\n").Replace(note("n-1", "phi-p1"))
	require.Equal(t, first.Link, w.item(t, w.push(t, pretty)[0]).Link)
	require.Equal(t, first.Link, w.item(t, w.push(t, strings.ReplaceAll(note("n-4", "phi-p1"), "phi-p1", first.Link))[0]).Link)

	got := starterWith(t, note("n-5", "phi-p1"), "push", "add", "main", "-", "--database-url", w.db.URL)
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.out, "Queued for st-mary/main:")
	for _, phi := range []string{"phi-", "Secret", "Osei", "Visit"} {
		require.NotContains(t, got.out+got.err, phi)
	}
	require.Equal(t, []string{"asserted:pat success"}, w.audited(t, "push.queued")[:1])
}

// TestBadArtefacts: what is wrong is named by line and path, what the line says isn't repeated, and nothing is stored.
func TestBadArtefacts(t *testing.T) {
	t.Parallel()
	w := newWard(t, "--deliver", "note=fhir,diagnosis=fhir", "--profile", "epic")
	edit := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(note("n-1", "phi-p1")) }
	diagnosis := func(coding, category string) string {
		return `{"patient":"phi-p1","kind":"diagnosis","artefact":"d-1","author":{"name":"Dr. Osei","role":"clinician"},"diagnosis":{"code":{"codings":[` +
			coding + `]},"category":"` + category + `","clinical_status":"active","verification_status":"confirmed"}}`
	}
	for name, tc := range map[string]struct {
		text, says string
		code       int
	}{
		"unknown patient":     {edit(`"phi-p1"`, `"phi-p9"`), "queueing line 1: the connection has no such patient", exitFailed},
		"others' encounter":   {edit("phi-e1", "phi-e2"), "encounter of another org or patient", exitFailed},
		"unknown encounter":   {edit("phi-e1", "phi-e9"), "Nothing was queued. Give the EHR's id of an encounter", exitFailed},
		"the second is wrong": {note("n-0", "phi-p1") + "\n" + edit("phi-e1", "phi-e2"), "queueing line 2", exitFailed},
		"empty note":          {edit("Secret words", ""), "line 1: note.text missing: the note is empty", exitUsage},
		"oversized note":      {edit("Secret words", strings.Repeat("a", 6<<20)), "note.text has more than 5 MiB", exitUsage},
		"content type":        {edit("text/plain", "image/png"), "note.content_type isn't one of", exitUsage},
		"EHR's content type":  {edit("text/plain", "text/html"), "line 1: ", exitUsage},
		"no encounter":        {edit(`"encounter":"phi-e1",`, ""), "encounter missing", exitUsage},
		"code without system": {diagnosis(`{"code":"E11.9"}`, "problem-list-item"), "diagnosis.code.codings[0].system missing", exitUsage},
		"malformed ICD code":  {diagnosis(`{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"E1"}`, "problem-list-item"), "diagnosis.code.codings[0].code", exitUsage},
		"category":            {diagnosis(`{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"E11.9"}`, "encounter-diagnosis"), "diagnosis.category isn't one", exitUsage},
		"no author":           {edit(`"author":{"name":"Dr. Osei","role":"clinician"},`, ""), "author.name missing", exitUsage},
		"role":                {edit("clinician", "janitor"), "author.role isn't a role", exitUsage},
		"no patient":          {edit(`"patient":"phi-p1",`, ""), "patient missing", exitUsage},
		"unknown field":       {edit(`"title"`, `"titel"`), "line 1: note.titel isn't a field that Cura knows", exitUsage},
		"field in capitals":   {edit(`"kind"`, `"Kind"`), "Kind isn't a field", exitUsage},
		"odd field":           {edit(`"title"`, `"Mr. Quillfeather"`), "note has a field that Cura doesn't know", exitUsage},
		"wrong kind of value": {edit(`"Visit"`, "5"), "note.title isn't a text", exitUsage},
		"number":              {edit(`"kind"`, `"version":"1","kind"`), "version isn't a whole number", exitUsage},
		"version 0":           {edit(`"kind"`, `"version":0,"kind"`), "version must be 1 or more", exitUsage},
		"time":                {edit(`"kind"`, `"authored_at":"yesterday","kind"`), "authored_at isn't a time", exitUsage},
		"base64":              {edit(`"text":"Secret words"`, `"data":"%%"`), "note.data isn't base64", exitUsage},
		"no object":           {`["a"]`, "the artefact isn't a JSON object", exitUsage},
		"no JSON":             {note("n-1", "phi-p1") + "\n{\"patient\":", "line 2 isn't JSON", exitUsage},
		"not UTF-8":           {edit("Secret", "\xff"), "isn't UTF-8", exitUsage},
		"nothing":             {" \n", "has no artefact", exitUsage},
		"twice":               {note("n-1", "phi-p1") + "\n" + note("n-1", "phi-p1"), "lines 1 and 2 are the same version", exitUsage},
		"retraction":          {edit(`"kind"`, `"retracts":true,"replaces":1,"version":2,"kind"`), "starter push retract", exitUsage},
		"label":               {edit(`"kind"`, `"labels":["HAPPY"],"kind"`), "labels[0] isn't a label", exitUsage},
	} {
		got := w.starter(t, "push", "add", "main", written(t, tc.text))
		require.Equal(t, tc.code, got.code, "%s: %s", name, got.err)
		require.Contains(t, got.err, tc.says, name)
		for _, phi := range []string{"phi-", "Secret", "Osei", "Quillfeather", "yesterday"} {
			require.NotContains(t, got.err, phi, name)
		}
	}
	require.Empty(t, storetest.Query[string](t, w.db, "SELECT item_id::text FROM push.outbox"))
	require.Empty(t, w.audited(t, "push.queued"))
	got := w.starter(t, "push", "add", "main", filepath.Join(t.TempDir(), "none"))
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.err, "no such file")

	// A version is what it is for good.
	w.push(t, note("n-1", "phi-p1"))
	changed := w.starter(t, "push", "add", "main", written(t, edit("Secret", "Other")))
	require.Equal(t, exitFailed, changed.code)
	require.Contains(t, changed.err, `raise "version"`)
}

func TestItemsAreListedAndShownWithoutWhatTheySay(t *testing.T) {
	t.Parallel()
	w := newWard(t, "--deliver", "note=fhir")
	ids := w.push(t, note("n-1", "phi-p1")+"\n"+note("n-2", "phi-p2"))
	w.deliver(t, ids[0], cura.DeliveryConfirmed, cura.ItemDelivered, "phi-doc")
	var views []itemView
	w.reads(t, &views, "push", "list", "main")
	require.Len(t, views, 2)
	require.Equal(t, ids[1], views[0].ID, "the newest first")
	for _, narrow := range [][]string{{"--state", "delivered"}, {"--patient", "phi-p1"}, {"--patient", string(w.profiles["phi-p1"])}} {
		w.reads(t, &views, append([]string{"push", "list", "main"}, narrow...)...)
		require.Len(t, views, 1, narrow)
		require.Equal(t, ids[0], views[0].ID)
	}
	require.Contains(t, w.does(t, "push", "list", "main", "--kind", "diagnosis"), "Nothing was queued that fits")
	require.Contains(t, w.starter(t, "push", "list", "main", "--limit", "1").err, "--limit shows more")

	for _, args := range [][]string{{"push", "show", "main", ids[0]}, {"push", "show", ids[0]}, {"push", "list", "main"}, {"push", "show", ids[0], "-o", "json"}} {
		got := w.starter(t, args...)
		require.Equal(t, exitDone, got.code, got.err)
		require.Contains(t, got.out, "confirmed")
		for _, phi := range []string{"phi-", "Secret", "Osei", "Visit"} {
			require.NotContains(t, got.out+got.err, phi)
		}
	}
	text := w.does(t, "push", "show", ids[0])
	for _, part := range []string{"Let through exempt, epoch 0, author's role clinician", "starter push retract st-mary/main " + ids[0], "HTTP 201"} {
		require.Contains(t, text, part)
	}
	require.Empty(t, w.audited(t, "push.viewed"))

	got := w.starter(t, "push", "show", ids[0], "--content")
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.err, "recorded")
	require.Contains(t, got.out, "Secret words")
	require.Contains(t, got.out, "phi-doc")
	require.Equal(t, []string{"asserted:pat success"}, w.audited(t, "push.viewed"))
}

func TestAPersonMovesItemsOn(t *testing.T) {
	t.Parallel()
	w := newWard(t, "--deliver", "note=fhir")
	items := make([]string, 6)
	for i := range items {
		items[i] = w.push(t, note("n-"+string(rune('a'+i)), "phi-p1"))[0]
	}
	refused := func(says string, args ...string) {
		t.Helper()
		got := w.starter(t, append([]string{"push"}, args...)...)
		require.Equal(t, exitFailed, got.code, got.err)
		require.Contains(t, got.err, says)
	}
	state := func(id string) cura.ItemState { return w.item(t, id).State }

	// A queued item is cancelled, and tried again.
	refused("it is queued", "retry", items[0])
	refused("the EHR doesn't have it for certain", "retract", "main", items[0])
	refused("it is queued; nothing waits for a person", "resolve", items[0], "--written")
	require.Contains(t, w.does(t, "push", "cancel", items[0]), "is cancelled.")
	refused("it is cancelled already", "cancel", items[0])
	w.does(t, "push", "retry", items[0])
	require.Equal(t, cura.ItemQueued, state(items[0]))

	// One that the gate has let through and that wasn't sent is cancelled, and its delivery with it.
	w.deliver(t, items[1], cura.DeliveryIntent, "", "")
	w.does(t, "push", "cancel", items[1])
	require.Equal(t, cura.DeliveryRejected, w.item(t, items[1]).Delivery.State)
	w.deliver(t, items[2], cura.DeliverySent, "", "")
	refused("its delivery is sent", "cancel", items[2])

	// What the EHR may have is decided by a person.
	w.deliver(t, items[3], cura.DeliveryUnknown, cura.ItemReview, "")
	refused("the EHR may have it already", "retry", items[3])
	refused("its delivery is unknown", "cancel", items[3])
	require.Contains(t, w.starter(t, "attention").out, "1 pushes wait for a decision")
	w.does(t, "push", "resolve", "st-mary/main", items[3], "--release")
	require.Equal(t, cura.ItemQueued, state(items[3]))
	require.Equal(t, cura.DeliveryIntent, w.item(t, items[3]).Delivery.State)
	w.deliver(t, items[4], cura.DeliveryUnknown, cura.ItemReview, "")
	w.does(t, "push", "resolve", items[4], "--written", "--id", "phi-doc")
	require.Equal(t, "phi-doc", w.item(t, items[4]).Delivery.EHRID)
	refused("nothing waits for a person", "resolve", items[4], "--release")

	// What was delivered is withdrawn by a new version without content.
	refused("starter push retract", "cancel", items[4])
	var retraction itemView
	w.reads(t, &retraction, "push", "retract", "main", items[4])
	require.True(t, retraction.Retracts)
	require.Equal(t, 2, retraction.Version)
	require.Equal(t, store.ExemptRetraction, retraction.Exempt)
	a := w.item(t, retraction.ID).Artefact
	require.Nil(t, a.Note)
	require.Equal(t, 1, a.Replaces)
	refused("its retraction is queued", "retract", "main", items[4])

	// What is handed over by hand.
	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		return tx.SetItem(t.Context(), items[5], cura.ItemManual, "a person hands it over", time.Time{})
	}))
	require.Contains(t, w.starter(t, "attention").out, "1 pushes wait to be handed over")
	refused("nothing to release", "resolve", items[5], "--release")
	w.does(t, "push", "resolve", items[5], "--written")
	require.Equal(t, cura.ItemDelivered, state(items[5]))
	refused("Cura doesn't know which resource", "retract", "main", items[5])
	require.Equal(t, exitDone, w.starter(t, "attention").code)

	refused("there is no such item", "show", uuid.NewString())
	refused("there is no such item", "show", "main", "nonsense")
	for _, args := range [][]string{{"resolve", items[0]}, {"resolve", items[0], "--written", "--release"}, {"resolve", items[0], "--release", "--id", "1"}, {"show"}, {"list", "main", "--state", "gone"}, {"list", "main", "--kind", "gone"}, {"list", "main", "--limit", "0"}} {
		require.Equal(t, exitUsage, w.starter(t, append([]string{"push"}, args...)...).code, args)
	}
}

// TestAnItemThatWasCancelledIsntLetThrough: the gate and a person meet at the item's row.
func TestAnItemThatWasCancelledIsntLetThrough(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := w.push(t, note("n-1", "phi-p1"))[0]
	stale := w.item(t, id)
	w.does(t, "push", "cancel", id)
	err := w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		return tx.PutIntent(t.Context(), store.Intent{Item: stale, Resource: "DocumentReference"})
	})
	require.ErrorContains(t, err, "taken it out of the queue")
	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		return tx.SetItem(t.Context(), id, cura.ItemSending, "put off", time.Now())
	}))
	require.Equal(t, cura.ItemCancelled, w.item(t, id).State)
}

func TestDeliveries(t *testing.T) {
	t.Parallel()
	w := newWard(t, "--deliver", "note=fhir")
	ids := w.push(t, note("n-1", "phi-p1")+"\n"+note("n-2", "phi-p2")+"\n"+note("n-3", "phi-p2"))
	w.deliver(t, ids[0], cura.DeliveryConfirmed, cura.ItemDelivered, "phi-doc")
	w.deliver(t, ids[1], cura.DeliveryUnknown, cura.ItemReview, "")
	w.does(t, "push", "retract", ids[0])
	w.does(t, "halt", "pushes", "--connection", "main", "--reason", "a look at it")
	var views []deliveriesView
	w.reads(t, &views, "deliveries", "st-mary/main")
	require.Len(t, views, 1)
	require.Equal(t, map[cura.ItemState]int{cura.ItemDelivered: 1, cura.ItemReview: 1, cura.ItemQueued: 2}, views[0].States)
	require.Equal(t, map[store.Exempt]int{store.ExemptRetraction: 1}, views[0].Exempt)
	require.NotNil(t, views[0].OldestQueued)
	require.Len(t, views[0].Stuck, 1)
	require.Equal(t, ids[1], views[0].Stuck[0].Item)
	require.Len(t, views[0].Halts, 1)
	text := w.does(t, "deliveries")
	for _, part := range []string{"1 review: as the test has it", "starter push show " + ids[1], "halted: pushes since", "a look at it", "starter unhalt pushes --connection st-mary/main"} {
		require.Contains(t, text, part)
	}
	require.NotContains(t, text, "phi-")
}

// TestDeliveriesAreWatched: it prints what has changed, until it is interrupted.
func TestDeliveriesAreWatched(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.push(t, note("n-1", "phi-p1"))
	ctx, cancel := context.WithCancel(t.Context())
	out := interrupting{cancel: cancel}
	oneAtATime.Lock()
	defer oneAtATime.Unlock()
	code := run(ctx, []string{"starter", "deliveries", "main", "--watch", "--database-url", w.db.URL}, strings.NewReader(""), &out, io.Discard)
	require.Equal(t, exitDone, code)
	require.Equal(t, 1, strings.Count(out.shown.String(), "st-mary/main"))
}

// interrupting is a screen before which somebody presses Ctrl-C once there is something on it.
type interrupting struct {
	shown  bytes.Buffer
	cancel context.CancelFunc
}

func (i *interrupting) Write(text []byte) (int, error) {
	i.cancel()
	return i.shown.Write(text)
}
