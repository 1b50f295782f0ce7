package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// decides runs a command line of starter reviews or starter profile as somebody; takeUp has decisions applied.
func (w ward) decides(t *testing.T, takeUp takeUpReviews, who string, args ...string) (out, hints string, err error) {
	t.Helper()
	oneAtATime.Lock()
	defer oneAtATime.Unlock()
	var printed, hinted bytes.Buffer
	app := newApp(strings.NewReader(""), &printed, &hinted)
	app.Commands = prepare([]*cli.Command{reviewsCommand(takeUp), profileCommand()})
	line, err := reorder(app, append(append([]string{"starter"}, args...), "--database-url", w.db.URL, "--as", who))
	if err == nil {
		err = app.RunContext(t.Context(), line)
	}
	return printed.String(), hinted.String(), err
}

// looks is decides for a command line that decides nothing and must succeed.
func (w ward) looks(t *testing.T, args ...string) string {
	t.Helper()
	out, _, err := w.decides(t, later, "pat", args...)
	require.NoError(t, err)
	return out
}

// later is a Temporal that is down.
func later(*cli.Context, *session, store.Listed) error {
	return fault.New("connecting to Temporal", fault.Unavailable, "it doesn't answer")
}

// ask opens a review about a version of a patient, and gives its id.
func (w ward) ask(t *testing.T, ehrID, raw string, kind cura.ReviewKind, candidates ...cura.ProfileID) string {
	t.Helper()
	it := store.Item{
		EHRID: ehrID, Hash: sha256.Sum256([]byte(raw)), Raw: []byte(raw), RawBytes: int64(len(raw)), Outcome: store.InReview,
		ReviewKind: kind, ReviewReason: "the reason of the " + string(kind), Candidates: candidates,
	}
	pass := store.Pass{Connection: w.l.Connection, Type: cura.Patient, Run: uuid.NewString()}
	require.NoError(t, w.db.InOrg(t.Context(), w.l.Org, func(tx *store.Tx) error {
		if err := tx.StartRun(t.Context(), store.Run{ID: pass.Run, Connection: pass.Connection, Kind: cura.RunBackfill, WorkflowID: "test"}); err != nil {
			return err
		}
		_, err := tx.ApplyPatient(t.Context(), pass, "1", []store.Item{it})
		return err
	}))
	return storetest.Query[string](t, w.db, "SELECT review_id::text FROM sync.reviews WHERE closed_at IS NULL ORDER BY opened_at DESC LIMIT 1")[0]
}

const changedPatient = `{"resourceType":"Patient","id":"phi-p1","name":[{"family":"Okafor","given":["Ada"]}],"birthDate":"1980-02-28"}`

// golden puts names in the place of what is another each time.
func (w ward) golden(text string, named map[string]string) string {
	for id, name := range named {
		text = strings.ReplaceAll(text, id, name)
	}
	text = strings.ReplaceAll(text, string(w.l.Connection), "CONNECTION")
	return regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`).ReplaceAllString(text, "WHEN")
}

func TestReviewsAreListed(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	require.Contains(t, w.looks(t, "reviews", "list"), "nobody waits for a decision here")
	require.JSONEq(t, "[]", w.looks(t, "reviews", "list", "-o", "json"))
	p1, p2 := w.profiles["phi-p1"], w.profiles["phi-p2"]
	match := w.ask(t, "phi-p3", changedPatient, cura.ReviewMatch, p1)
	conflict := w.ask(t, "phi-p1", changedPatient, cura.ReviewConflict, p1)

	out, hints, err := w.decides(t, later, "pat", "reviews", "list")
	require.NoError(t, err)
	for _, part := range []string{match, conflict, "st-mary/main", "the reason of the match", "--link " + string(p1), "--new", "--keep ehr", "--keep cura"} {
		require.Contains(t, out, part)
	}
	require.Contains(t, hints, "starter reviews show ID")
	for _, phi := range []string{"phi-", "Okafor", "1980"} {
		require.NotContains(t, out+hints, phi)
	}
	require.JSONEq(t, `[{
		"id": "MATCH", "connection": "st-mary/main", "connection_id": "CONNECTION", "kind": "match", "reason": "the reason of the match",
		"candidates": ["P1"], "opened_at": "WHEN", "state": "open",
		"commands": ["starter reviews resolve MATCH --link P1", "starter reviews resolve MATCH --new"]
	}]`, w.golden(w.looks(t, "reviews", "list", "st-mary/main", "--kind", "match", "-o", "json"), map[string]string{match: "MATCH", string(p1): "P1"}))

	w.ask(t, "phi-p3", `{"resourceType":"Patient","id":"phi-p3"}`, cura.ReviewMatch, p2)
	require.NotContains(t, w.looks(t, "reviews", "list"), match, "another version has come")
	all := w.looks(t, "reviews", "list", "--all")
	require.Contains(t, all, match)
	require.Contains(t, all, "overtaken")
	require.Empty(t, w.audited(t, "review.viewed"))
}

func TestAReviewIsShownElementByElement(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	p1 := w.profiles["phi-p1"]
	id := w.ask(t, "phi-p1", changedPatient, cura.ReviewConflict, p1)
	out, hints, err := w.decides(t, later, "pat", "reviews", "show", id)
	require.NoError(t, err)
	for _, part := range []string{
		"conflict: the reason of the conflict", "Cura        profile " + string(p1) + ": the patient's now", "≠ Quillfeather", "Ada Okafor", "1980-02-28  ≠ -",
		"Decide it with one of:", "starter reviews resolve " + id + " --keep ehr", "starter reviews resolve " + id + " --keep cura",
	} {
		require.Contains(t, out, part)
	}
	require.NotContains(t, out, "gender", "neither side says anything of it")
	require.Contains(t, hints, "that you have looked at it is recorded")
	require.JSONEq(t, `{
		"id": "ID", "connection": "st-mary/main", "connection_id": "CONNECTION", "kind": "conflict", "reason": "the reason of the conflict",
		"candidates": ["P1"], "opened_at": "WHEN", "state": "open",
		"commands": ["starter reviews resolve ID --keep ehr", "starter reviews resolve ID --keep cura"],
		"profiles": [{"profile_id": "P1", "role": "the patient's now"}],
		"elements": [
			{"path": "name.display", "ehr": "Ada Okafor", "cura": ["Quillfeather 1"], "differs": true},
			{"path": "name.given", "ehr": "Ada", "cura": [""], "differs": true},
			{"path": "name.family", "ehr": "Okafor", "cura": ["Quillfeather"], "differs": true},
			{"path": "birth_date", "ehr": "1980-02-28", "cura": [""], "differs": true}
		]
	}`, w.golden(w.looks(t, "reviews", "show", id, "-o", "json"), map[string]string{id: "ID", string(p1): "P1"}))
	require.Equal(t, []string{"asserted:pat success", "asserted:pat success"}, w.audited(t, "review.viewed"))

	w.does(t, "org", "operators", "add", "st-mary", "vera", "--role", "viewer")
	_, _, err = w.decides(t, later, "vera", "reviews", "show", id)
	require.NoError(t, err)
	out, _, err = w.decides(t, later, "eve", "reviews", "show", id)
	require.ErrorContains(t, err, "eve is no operator of org st-mary")
	require.Empty(t, out)
	require.Equal(t, "asserted:eve denied", w.audited(t, "review.viewed")[3])
}

// TestWhatAReviewIsAbout: each kind says what its profiles are to the patient, and offers what fits it.
func TestWhatAReviewIsAbout(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	p1, p2 := w.profiles["phi-p1"], w.profiles["phi-p2"]
	superuser := func(sql string) { storetest.Query[string](t, w.db, sql) }
	superuser("UPDATE cura.profiles SET merged_into = '" + string(p2) + "', changed_at = now() WHERE profile_id = '" + string(p1) + "' RETURNING ''")
	for name, tc := range map[string]struct {
		ehrID      string
		kind       cura.ReviewKind
		candidates []cura.ProfileID
		says       []string
	}{
		"a match without candidates": {"phi-p3", cura.ReviewMatch, nil, []string{"has no profile that may be meant", "--link PROFILE", "--new"}},
		"a match with two": {"phi-p4", cura.ReviewMatch, []cura.ProfileID{p1, p2}, []string{
			"Cura 1      profile " + string(p1) + ": a candidate", "Cura 2      profile " + string(p2) + ": a candidate", "--link " + string(p1), "--link " + string(p2),
			"changed in Cura 2", "merged into profile " + string(p2),
		}},
		"a merge": {"phi-p1", cura.ReviewMerge, []cura.ProfileID{p1, p2}, []string{
			string(p1) + ": the patient's now", string(p2) + ": the other record's, that the hospital has merged the patient into", "--merge", "--keep cura",
		}},
		"a split": {"phi-p2", cura.ReviewSplit, []cura.ProfileID{p1, p2}, []string{
			string(p1) + ": the patient's before the merge", string(p2) + ": the patient's now", "--link " + string(p1), "--new", "--keep cura",
		}},
	} {
		raw := `{"resourceType":"Patient","id":"` + tc.ehrID + `","name":[{"text":"\u001b[31mRed"}]}`
		out := w.looks(t, "reviews", "show", w.ask(t, tc.ehrID, raw, tc.kind, tc.candidates...))
		for _, part := range tc.says {
			require.Contains(t, out, part, name)
		}
		require.NotContains(t, out, "\u001b", "what the EHR sends doesn't command the terminal")
		if tc.kind == cura.ReviewSplit {
			require.NotContains(t, out, "--link "+string(p2))
		}
	}

	// What can't be mapped any more is told without saying what it is.
	id := w.ask(t, "phi-p5", `{"resourceType":"Patient","id":"phi-p5","gender":"phi"}`, cura.ReviewMatch)
	_, hints, err := w.decides(t, later, "pat", "reviews", "show", id)
	require.NoError(t, err)
	require.Contains(t, hints, "The EHR's version isn't shown: Patient can't be mapped: Patient.gender")
	require.NotContains(t, hints, "phi-")
}

func TestAReviewIsResolved(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	p1 := w.profiles["phi-p1"]
	became := func(set string) takeUpReviews {
		return func(_ *cli.Context, _ *session, l store.Listed) error {
			require.Equal(t, w.l.Connection, l.Connection)
			storetest.Query[string](t, w.db, "UPDATE sync.reviews SET closed_at = now()"+set+" WHERE closed_at IS NULL RETURNING ''")
			return nil
		}
	}

	applied := w.ask(t, "phi-p1", changedPatient, cura.ReviewConflict, p1)
	out, _, err := w.decides(t, became(", applied_at = clock_timestamp()"), "kim", "reviews", "resolve", applied, "--keep", "ehr")
	require.NoError(t, err)
	require.Equal(t, "Review "+applied+" is decided (keep-ehr) and applied.\n", out)

	again, hints, err := w.decides(t, later, "pat", "reviews", "resolve", applied, "--keep", "cura")
	require.True(t, fault.Is(err, fault.Conflict))
	require.ErrorContains(t, err, "already decided by asserted:kim at ")
	require.Empty(t, again)
	require.NotContains(t, hints, "The decision is kept")
	require.Contains(t, w.looks(t, "reviews", "show", applied), "State       applied: keep-ehr by asserted:kim at ")
	require.Contains(t, w.looks(t, "reviews", "list", "--all"), "keep-ehr, asserted:kim")

	overtaken := w.ask(t, "phi-p1", changedPatient+" ", cura.ReviewConflict, p1)
	out, _, err = w.decides(t, became(""), "kim", "reviews", "resolve", overtaken, "--keep", "ehr")
	require.NoError(t, err)
	require.Contains(t, out, "the hospital has sent another version meanwhile: see starter reviews list st-mary/main")

	kept := w.ask(t, "phi-p3", changedPatient, cura.ReviewMatch, p1)
	out, hints, err = w.decides(t, later, "kim", "reviews", "resolve", kept, "--new", "-o", "json")
	require.NoError(t, err)
	require.Contains(t, hints, "The decision is kept, but can't be applied now: connecting to Temporal: it doesn't answer")
	require.Contains(t, hints, "starter sync st-mary/main")
	require.JSONEq(t, `{
		"id": "ID", "connection": "st-mary/main", "connection_id": "CONNECTION", "kind": "match", "reason": "the reason of the match",
		"candidates": ["P1"], "opened_at": "WHEN", "state": "decided", "decision": "new", "decided_by": "asserted:kim", "decided_at": "WHEN", "commands": []
	}`, w.golden(out, map[string]string{kept: "ID", string(p1): "P1"}))
	require.Contains(t, w.looks(t, "reviews", "list"), "new, asserted:kim", "listed until it is applied")
	require.Equal(t, []string{"asserted:kim success", "asserted:kim success", "asserted:kim success"}, w.audited(t, "review.decided"))
}

// A patient who was merged may be linked to the profile of the one into whom they were, and to no other patient's.
func TestAMergedPatientIsLinkedToTheOthersProfile(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	p1, p2 := w.profiles["phi-p1"], w.profiles["phi-p2"]
	for into, says := range map[string]string{
		"Patient/phi-p2":                       "another patient of this connection is linked to profile " + string(p1),
		"https://other.example/Patient/phi-p1": "another patient of this connection",
		`Patient/phi-p1"}},{"type":"seealso","other":{"reference":"Patient/x`: "",
	} {
		raw := `{"resourceType":"Patient","id":"phi-p3","link":[{"type":"replaced-by","other":{"reference":"` + into + `"}}]}`
		_, _, err := w.decides(t, later, "kim", "reviews", "resolve", w.ask(t, "phi-p3", raw, cura.ReviewMatch, p1), "--link", string(p1))
		if says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, says)
		}
	}
	raw := `{"resourceType":"Patient","id":"phi-p4","link":[{"type":"replaced-by","other":{"reference":"https://ehr.st-mary.example/fhir/R4/Patient/phi-p2"}}]}`
	_, _, err := w.decides(t, later, "kim", "reviews", "resolve", w.ask(t, "phi-p4", raw, cura.ReviewMatch, p2), "--link", string(p2))
	require.NoError(t, err, "the same server, named whole")
}

func TestReviewsRefuse(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := w.ask(t, "phi-p3", changedPatient, cura.ReviewMatch)
	w.does(t, "org", "operators", "add", "st-mary", "vera", "--role", "viewer")
	w.does(t, "org", "operators", "add", "st-mary", "pat", "--role", "ops")
	usage, unknown := "usage", uuid.NewString()
	for name, tc := range map[string]struct {
		args      []string
		who, kind string
		says      string
	}{
		"no decision":        {[]string{"resolve", id}, "pat", usage, "say one of --keep ehr"},
		"two decisions":      {[]string{"resolve", id, "--new", "--merge"}, "pat", usage, "say one of --keep ehr"},
		"keep what":          {[]string{"resolve", id, "--keep", "both"}, "pat", usage, `--keep is "both"`},
		"link to an EHR id":  {[]string{"resolve", id, "--link", "phi-p1"}, "pat", usage, "--link takes Cura's id of a profile"},
		"no id":              {[]string{"show"}, "pat", usage, "the review's id"},
		"an odd id":          {[]string{"show", "5"}, "pat", usage, "isn't the id of a review"},
		"a kind":             {[]string{"list", "--kind", "matches"}, "pat", usage, "must be one of match, merge, split, conflict"},
		"too many words":     {[]string{"list", "a", "b"}, "pat", usage, "at most one argument"},
		"unknown review":     {[]string{"show", unknown}, "pat", string(fault.NotFound), "there is no such review"},
		"resolve an unknown": {[]string{"resolve", unknown, "--new"}, "pat", string(fault.NotFound), "starter reviews list --all"},
		"unknown connection": {[]string{"list", "none"}, "pat", string(fault.NotFound), "there is no connection"},
		"unknown profile":    {[]string{"resolve", id, "--link", unknown}, "pat", string(fault.NotFound), "no such profile"},
		"what doesn't fit":   {[]string{"resolve", id, "--keep", "cura"}, "pat", string(fault.Config), "What fits is: link, new"},
		"a viewer":           {[]string{"resolve", id, "--new"}, "vera", string(fault.Config), "vera is viewer in org st-mary; this takes one of: ops, admin"},
	} {
		_, _, err := w.decides(t, later, tc.who, append([]string{"reviews"}, tc.args...)...)
		kind := string(fault.KindOf(err))
		if errors.As(err, new(*usageError)) {
			kind = usage
		}
		require.Equal(t, tc.kind, kind, "%s: %v", name, err)
		require.ErrorContains(t, err, tc.says, name)
	}
	require.Equal(t, []string{"asserted:vera denied"}, w.audited(t, "review.decided"))
}
