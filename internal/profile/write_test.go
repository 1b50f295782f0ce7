package profile_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
)

// ownWrites ends a hospital's own profile. Line numbers below count from own's first.
const ownWrites = `writes:
  note:
    resource: DocumentReference
    content_types: [text/plain, application/pdf]
    encounter_required: true
    period_end: true
    read_back: search
    update: true
    if_match: true
    why: The vendor's page says so.
  diagnosis:
    resource: Condition
    categories: [problem-list-item]
    read_back: none
    held: true
    why: The vendor's page says so.
  consent-event:
    resource: DocumentReference
    stores_identifier: true
    conditional_create: true
    read_back: identifier
    why: The vendor's page says so.
`

func TestParseWrites(t *testing.T) {
	t.Parallel()
	p := parsed(t, own+ownWrites)
	note, ok := p.Write(cura.Note)
	require.True(t, ok)
	require.Equal(t, profile.Write{
		Resource: "DocumentReference", ContentTypes: []string{"text/plain", "application/pdf"}, EncounterRequired: true, PeriodEnd: true,
		ReadBack: profile.ReadBackSearch, Update: true, IfMatch: true, Why: "The vendor's page says so.",
	}, note)
	diagnosis, ok := p.Write(cura.Diagnosis)
	require.True(t, ok)
	require.True(t, diagnosis.Held)
	_, ok = p.Write(cura.Procedure)
	require.False(t, ok)
	filled, err := p.Fill(map[string]string{"tenant": "north"})
	require.NoError(t, err)
	require.Equal(t, p.Writes, filled.Writes)
}

// TestParseRefusesWrites replaces a piece of ownWrites, and looks for line, field and words.
func TestParseRefusesWrites(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ piece, with, want string }{
		"kind":                   {"  note:", "  letter:", `epic2.yaml:24: writes.letter: it isn't one of the kinds that Cura delivers: note, diagnosis, procedure, consent-event`},
		"resource":               {"resource: Condition", "resource: Observation", `epic2.yaml:34: writes.diagnosis.resource: "Observation" isn't one of Condition`},
		"no resource":            {"    resource: Condition\n", "", `epic2.yaml:33: writes.diagnosis.resource: it is missing: give one of Condition`},
		"content type":           {"text/plain", "plain text", `epic2.yaml:26: writes.note.content_types.0: "plain text" isn't a media type`},
		"a charset":              {"text/plain", "text/plain;charset=utf-8", `epic2.yaml:26: writes.note.content_types.0: "text/plain;charset=utf-8" isn't a media type`},
		"a content type twice":   {"application/pdf", "text/plain", `epic2.yaml:26: writes.note.content_types.1: "text/plain" stands here twice`},
		"content of a code":      {"    held: true", "    content_types: [text/plain]", `epic2.yaml:37: writes.diagnosis.content_types: only documents have a content type`},
		"period of a code":       {"    held: true", "    period_end: true", `epic2.yaml:37: writes.diagnosis.period_end: only documents have a period`},
		"category":               {"problem-list-item", "problem", `epic2.yaml:35: writes.diagnosis.categories.0: "problem" isn't one of encounter-diagnosis, problem-list-item`},
		"a category twice":       {"[problem-list-item]", "[problem-list-item, problem-list-item]", `epic2.yaml:35: writes.diagnosis.categories.1: "problem-list-item" stands here twice`},
		"category of a note":     {"    period_end: true", "    categories: [problem-list-item]", `epic2.yaml:28: writes.note.categories: only diagnoses have categories here`},
		"read back":              {"read_back: search", "read_back: guess", `epic2.yaml:29: writes.note.read_back: "guess" isn't one of identifier, search, none`},
		"no read back":           {"    read_back: none\n", "", `epic2.yaml:33: writes.diagnosis.read_back: it is missing: give one of identifier, search, none`},
		"identifier unkept":      {"read_back: search", "read_back: identifier", `epic2.yaml:29: writes.note.read_back: identifier needs stores_identifier: true`},
		"condition unkept":       {"    stores_identifier: true\n", "", `epic2.yaml:41: writes.consent-event.conditional_create: it is by identifier, and needs stores_identifier: true`},
		"If-Match of no update":  {"    update: true\n", "", `epic2.yaml:30: writes.note.if_match: it is for updates, and needs update: true`},
		"no why":                 {"    why: The vendor's page says so.\n  diagnosis", "  diagnosis", `epic2.yaml:24: writes.note.why: it is missing`},
		"unknown field":          {"    held: true", "    kept: true", `epic2.yaml:37: writes.diagnosis.kept: there is no field "kept" here`},
		"a text for a yes":       {"held: true", "held: perhaps", `epic2.yaml:37: writes.diagnosis.held: a text can't stand here; it must be true or false`},
		"a text for a whole one": {strings.TrimPrefix(ownWrites, "writes:\n"), "  note: all\n", `epic2.yaml:24: writes.note: a text can't stand here; it must be a group of fields`},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, ownWrites, test.piece)
			_, err := profile.Parse("epic2.yaml", []byte(own+strings.Replace(ownWrites, test.piece, test.with, 1)))
			require.True(t, fault.Is(err, fault.Config), err)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestWriteScopes(t *testing.T) {
	t.Parallel()
	writes := map[cura.ArtefactKind]profile.Write{
		cura.Note:         {Resource: "DocumentReference", ReadBack: profile.ReadBackSearch},
		cura.Diagnosis:    {Resource: "Condition", ReadBack: profile.ReadBackNone},
		cura.ConsentEvent: {Resource: "DocumentReference", ReadBack: profile.ReadBackNone, Update: true},
	}
	all := cura.ArtefactKinds()
	cases := map[string]struct {
		mode  profile.ScopeMode
		kinds []cura.ArtefactKind
		want  []string
	}{
		"none":             {profile.ScopesNone, all, nil},
		"no kinds":         {profile.ScopesV2, nil, nil},
		"version 1":        {profile.ScopesV1, all, []string{"system/DocumentReference.write", "system/DocumentReference.read", "system/Condition.write"}},
		"version 2":        {profile.ScopesV2, all, []string{"system/DocumentReference.crus", "system/Condition.c"}},
		"read back":        {profile.ScopesV2, []cura.ArtefactKind{cura.Note}, []string{"system/DocumentReference.crs"}},
		"update":           {profile.ScopesV2, []cura.ArtefactKind{cura.ConsentEvent}, []string{"system/DocumentReference.cu"}},
		"one that isn't":   {profile.ScopesV2, []cura.ArtefactKind{cura.Procedure}, nil},
		"create and no so": {profile.ScopesV1, []cura.ArtefactKind{cura.Diagnosis}, []string{"system/Condition.write"}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, (&profile.Profile{Scopes: test.mode, Writes: writes}).WriteScopes(test.kinds))
		})
	}
}
