package store_test

import (
	"cmp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// outbox is a fixture with a patient, to whom artefacts are pushed.
type outbox struct {
	*fixture

	link    string
	profile cura.ProfileID
}

func newOutbox(t *testing.T) *outbox {
	t.Helper()
	o := &outbox{fixture: newFixture(t, cluster.New(t))}
	require.NoError(t, o.db.OpenSends(t.Context(), 4))
	o.link, o.profile = o.addPatient(t, "p1", "100")
	return o
}

// addPatient has a patient pulled, and gives the link that was made.
func (o *outbox) addPatient(t *testing.T, id, mrn string) (link string, profile cura.ProfileID) {
	t.Helper()
	_, err := o.apply(t, o.lease(t, o.pass(cura.Patient)), store.Advance{Candidate: serverTime}, patient(id, mrn))
	require.NoError(t, err)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		var err error
		link, profile, err = tx.LinkOf(t.Context(), o.connection, id)
		return err
	}))
	return link, profile
}

func note(id string, version int) cura.Artefact {
	return cura.Artefact{
		Kind: cura.Note, ID: id, Version: version, Author: cura.Author{Name: "Ada", Role: cura.RoleClinician}, AuthoredAt: serverTime,
		Note: &cura.NoteContent{Type: "11506-3", Title: "Progress note", ContentType: "text/plain", Text: "note " + id},
	}
}

// add queues an artefact for the fixture's patient, and gives the item.
func (o *outbox) add(t *testing.T, a cura.Artefact) store.OutboxItem {
	t.Helper()
	var item store.OutboxItem
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		id, err := tx.AddItem(t.Context(), o.connection, o.link, a, store.NotExempt, "ada")
		if err != nil {
			return err
		}
		item, err = tx.Item(t.Context(), id)
		return err
	}))
	return item
}

// again reads an item as it stands now.
func (o *outbox) again(t *testing.T, item store.OutboxItem) store.OutboxItem {
	t.Helper()
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		var err error
		item, err = tx.Item(t.Context(), item.ID)
		return err
	}))
	return item
}

// next is the id of the artefact that is first in the fixture's queue; empty: there is none.
func (o *outbox) next(t *testing.T) string {
	t.Helper()
	var artefact string
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		item, err := tx.NextItem(t.Context(), o.link)
		if item != nil {
			artefact = item.Artefact.ID
		}
		return err
	}))
	return artefact
}

func (o *outbox) set(t *testing.T, item store.OutboxItem, state cura.ItemState, why string, due time.Time) {
	t.Helper()
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.SetItem(t.Context(), item.ID, state, why, due) }))
}

func requireKind(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, kind, fault.KindOf(err), "%v", err)
}

func TestAnArtefactVersionIsQueuedOnce(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	first := o.add(t, note("n1", 1))
	require.Equal(t, cura.ItemQueued, first.State)
	require.Equal(t, o.link, first.Link)
	require.Equal(t, o.profile, first.Profile)
	require.Equal(t, "p1", first.PatientEHRID)
	require.Equal(t, note("n1", 1), first.Artefact)
	require.Nil(t, first.Delivery, "the gate hasn't looked at it yet")
	require.Nil(t, first.DueAt)

	require.Equal(t, first.ID, o.add(t, note("n1", 1)).ID, "the same again is the same item")
	changed := note("n1", 1)
	changed.Note.Text = "other words"
	err := o.in(t, func(tx *store.Tx) error {
		_, err := tx.AddItem(t.Context(), o.connection, o.link, changed, store.NotExempt, "ada")
		return err
	})
	requireKind(t, err, fault.Conflict)
	require.NotContains(t, err.Error(), "words")
	changed.Version = 2
	second := o.add(t, changed)
	require.NotEqual(t, first.ID, second.ID)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		versions, err := tx.Versions(t.Context(), o.connection, "n1")
		require.Len(t, versions, 2)
		require.Equal(t, []string{first.ID, second.ID}, []string{versions[0].ID, versions[1].ID})
		return err
	}))
	require.Equal(t, []string{"ada", "ada"}, storetest.Query[string](t, o.db, "SELECT actor FROM audit.records WHERE kind = 'push.queued'"))
}

func TestAQueueKeepsItsOrderAndAReviewHoldsOnlyItsItem(t *testing.T) {
	t.Parallel()
	for _, left := range []cura.ItemState{
		cura.ItemDelivered, cura.ItemHeld, cura.ItemDenied, cura.ItemCancelled, cura.ItemRejected, cura.ItemReview, cura.ItemManual,
	} {
		t.Run(string(left), func(t *testing.T) {
			t.Parallel()
			o := newOutbox(t)
			first := o.add(t, note("n1", 1))
			second := o.add(t, note("n2", 1))
			require.Equal(t, "n1", o.next(t))
			o.set(t, first, cura.ItemSending, "", time.Time{})
			require.Equal(t, "n1", o.next(t), "what is on its way is still the first")
			due := time.Now().Add(time.Hour)
			o.set(t, first, cura.ItemSending, "the EHR asks to wait", due)
			require.Equal(t, "n1", o.next(t), "what waits isn't overtaken")
			require.WithinDuration(t, due, *o.again(t, first).DueAt, time.Millisecond)
			o.set(t, first, left, "because", time.Time{})
			require.Equal(t, "because", o.again(t, first).Why)
			require.Equal(t, "n2", o.next(t))
			o.set(t, second, left, "", time.Time{})
			require.Empty(t, o.next(t))
		})
	}
}

func TestWhatWasTakenOutOfTheQueueIsntSending(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.add(t, note("n1", 1))
	o.set(t, item, cura.ItemCancelled, "a person says so", time.Time{})
	o.set(t, item, cura.ItemSending, "a worker that is late", time.Time{})
	require.Equal(t, cura.ItemCancelled, o.again(t, item).State)
}

func TestPuttingOffCountsAttemptsUntilTheItemMovesOn(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.add(t, note("n1", 1))
	putOff := func() (attempts int) {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			var err error
			attempts, err = tx.PutOff(t.Context(), item.ID, "no connection", time.Hour)
			return err
		}))
		return attempts
	}
	require.Equal(t, 1, putOff())
	require.Equal(t, 2, putOff())
	item = o.again(t, item)
	require.Equal(t, cura.ItemQueued, item.State)
	require.Equal(t, 2, item.Attempts)
	require.True(t, item.DueAt.After(time.Now()))
	o.set(t, item, cura.ItemReview, "given up", time.Time{})
	require.Zero(t, o.again(t, item).Attempts)
	require.NoError(t, o.in(t, func(tx *store.Tx) error { return tx.Requeue(t.Context(), item, "sam") }))
	item = o.again(t, item)
	require.Equal(t, cura.ItemQueued, item.State)
	require.Empty(t, item.Why)
	require.Nil(t, item.DueAt)
}

func TestItemsAreListedAndCounted(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	noted := o.add(t, note("n1", 1))
	waiting := o.add(t, note("n2", 1))
	coded := cura.Artefact{
		Kind: cura.Diagnosis, ID: "d1", Version: 1, Author: cura.Author{Name: "Cem", Role: cura.RoleCoder}, AuthoredAt: serverTime, Labels: []string{"SUD"},
		Diagnosis: &cura.DiagnosisContent{Code: cura.Concept{Codings: []cura.Coding{{System: "http://hl7.org/fhir/sid/icd-10-cm", Code: "E11.9"}}}},
	}
	diagnosis := o.add(t, coded)
	o.set(t, noted, cura.ItemReview, "look there", time.Time{})
	o.set(t, diagnosis, cura.ItemReview, "look there", time.Time{})
	_, stranger := o.addPatient(t, "p2", "200")
	elsewhere := addConnection(t, o.db, o.org, "other")

	list := func(f store.ItemFilter) (ids []string) {
		f.Limit = cmp.Or(f.Limit, 10)
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			items, err := tx.Items(t.Context(), f)
			for _, i := range items {
				ids = append(ids, i.Artefact.ID)
			}
			return err
		}))
		return ids
	}
	require.Equal(t, []string{"d1", "n2", "n1"}, list(store.ItemFilter{}), "the newest first")
	require.Equal(t, []string{"d1"}, list(store.ItemFilter{Limit: 1}))
	require.Equal(t, []string{"d1", "n1"}, list(store.ItemFilter{States: []cura.ItemState{cura.ItemReview, cura.ItemDenied}}))
	require.Equal(t, []string{"d1"}, list(store.ItemFilter{Kinds: []cura.ArtefactKind{cura.Diagnosis}}))
	require.Equal(t, []string{"n2"}, list(store.ItemFilter{Profile: o.profile, Connection: o.connection, States: []cura.ItemState{cura.ItemQueued}}))
	require.Empty(t, list(store.ItemFilter{Profile: stranger}))
	require.Empty(t, list(store.ItemFilter{Connection: elsewhere}))

	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		counts, err := tx.ItemCounts(t.Context(), o.connection)
		require.Equal(t, map[cura.ItemState]int{cura.ItemQueued: 1, cura.ItemReview: 2}, counts)
		return err
	}))
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		groups, err := tx.ItemGroups(t.Context())
		require.Len(t, groups, 2)
		require.Equal(t, store.ItemGroup{Connection: o.connection, State: cura.ItemQueued, Items: 1, Item: waiting.ID, Oldest: groups[0].Oldest}, groups[0])
		require.Equal(t, store.ItemGroup{
			Connection: o.connection, State: cura.ItemReview, Why: "look there", Items: 2, Item: noted.ID, Oldest: groups[1].Oldest,
		}, groups[1])
		return err
	}))
}

func TestAnItemIsNamedByItsIDAlone(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	item := o.add(t, note("n1", 1))
	for name, id := range map[string]string{"nothing": "", "no id": "n1", "another id": uuid.NewString()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireKind(t, o.in(t, func(tx *store.Tx) error {
				_, err := tx.Item(t.Context(), id)
				return err
			}), fault.NotFound)
			requireKind(t, o.in(t, func(tx *store.Tx) error {
				_, err := tx.LockItem(t.Context(), id)
				return err
			}), fault.NotFound)
		})
	}
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		locked, err := tx.LockItem(t.Context(), item.ID)
		require.Equal(t, item, locked)
		return err
	}))
}

func TestPatientsAreNamedInThreeWays(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	other := addConnection(t, o.db, o.org, "other")
	for _, name := range []string{"p1", o.link, string(o.profile)} {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			link, profile, err := tx.LinkOf(t.Context(), o.connection, name)
			require.Equal(t, o.link, link)
			require.Equal(t, o.profile, profile)
			return err
		}))
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			profile, err := tx.ProfileOf(t.Context(), name)
			require.Equal(t, o.profile, profile)
			return err
		}))
		err := o.in(t, func(tx *store.Tx) error {
			_, _, err := tx.LinkOf(t.Context(), other, name)
			return err
		})
		requireKind(t, err, fault.NotFound)
		require.NotContains(t, err.Error(), name, "an EHR id is PHI")
	}
	requireKind(t, o.in(t, func(tx *store.Tx) error {
		_, err := tx.ProfileOf(t.Context(), "p2")
		return err
	}), fault.NotFound)

	there := &outbox{fixture: &fixture{db: o.db, org: o.org, connection: other, run: uuid.NewString()}}
	there.startRun(t, there.run, cura.RunBackfill)
	there.addPatient(t, "p1", "other person")
	requireKind(t, o.in(t, func(tx *store.Tx) error {
		_, err := tx.ProfileOf(t.Context(), "p1")
		return err
	}), fault.Conflict)
	require.NoError(t, o.in(t, func(tx *store.Tx) error {
		links, err := tx.LinksOf(t.Context(), o.profile)
		require.Equal(t, []store.Link{{ID: o.link, Connection: o.connection, EHRID: "p1"}}, links)
		return err
	}))
}

func TestAnEncounterIsThePatientsOwn(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	_, stranger := o.addPatient(t, "p2", "200")
	visit := item("e1", "encounter e1")
	visit.Profile = o.profile
	visit.Record = cura.Record{Type: cura.Encounter, EHRID: "e1", PatientEHRID: "p1", Visit: &cura.Visit{Status: "finished"}}
	_, err := o.apply(t, o.lease(t, o.pass(cura.Encounter)), store.Advance{Candidate: serverTime}, visit)
	require.NoError(t, err)
	has := func(profile cura.ProfileID, id string) (has bool) {
		require.NoError(t, o.in(t, func(tx *store.Tx) error {
			var err error
			has, err = tx.HasEncounter(t.Context(), o.connection, profile, id)
			return err
		}))
		return has
	}
	require.True(t, has(o.profile, "e1"))
	require.False(t, has(stranger, "e1"))
	require.False(t, has(o.profile, "e2"))
}

// TestWhatTheTableCantHold: rows come from applications too, past AddItem.
func TestWhatTheTableCantHold(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*cura.Artefact){
		"a kind that isn't known": func(a *cura.Artefact) { a.Kind = "image" },
		"an empty id":             func(a *cura.Artefact) { a.ID = "" },
		"an id of other letters":  func(a *cura.Artefact) { a.ID = "n/1" },
		"an id too long":          func(a *cura.Artefact) { a.ID = strings.Repeat("n", 65) },
		"version 0":               func(a *cura.Artefact) { a.Version = 0 },
		"no author":               func(a *cura.Artefact) { a.Author.Name = "" },
		"no role":                 func(a *cura.Artefact) { a.Author.Role = "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutbox(t)
			a := note("n1", 1)
			spoil(&a)
			requireKind(t, o.in(t, func(tx *store.Tx) error {
				_, err := tx.AddItem(t.Context(), o.connection, o.link, a, store.NotExempt, "ada")
				return err
			}), fault.Data)
			require.Equal(t, []int64{0}, storetest.Query[int64](t, o.db, "SELECT count(*) FROM push.outbox"))
		})
	}
}
