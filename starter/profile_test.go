package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// shows reads what Cura shows of a person.
func (w ward) shows(t *testing.T, id cura.ProfileID) (v personView) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(w.looks(t, "profile", "show", "st-mary", string(id), "-o", "json")), &v))
	return v
}

func TestAProfileIsSet(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := w.profiles["phi-p1"]
	out := w.looks(t, "profile", "set", "st-mary", string(id), "--name-family", "Okafor", "--name-given", "Ada  Maria", "--birth-date", "1980-02-28", "--gender", "female",
		"--phone", "555 0100", "--email", "ada@example.org", "--address", "1 Main St, Springfield")
	require.Equal(t, "Changed of profile "+string(id)+": name.display, name.given, name.family, birth_date, gender, telecom, addresses.\n", out)
	v := w.shows(t, id)
	require.Equal(t, &cura.Profile{
		Name: &cura.Name{Display: "Ada Maria Okafor", Family: "Okafor", Given: []string{"Ada", "Maria"}},
		BirthDate: &cura.Moment{
			Text: "1980-02-28", Precision: cura.PrecisionDay, Start: time.Date(1980, 2, 28, 0, 0, 0, 0, time.UTC), End: time.Date(1980, 2, 29, 0, 0, 0, 0, time.UTC),
		},
		Gender:    "female",
		Telecom:   []cura.ContactPoint{{System: "phone", Value: "555 0100"}, {System: "email", Value: "ada@example.org"}},
		Addresses: []cura.Address{{Text: "1 Main St, Springfield"}},
	}, v.Record)
	require.NotNil(t, v.ChangedAt)
	require.Len(t, v.Changes, 1)
	require.Equal(t, "asserted:pat", v.Changes[0].Actor)

	require.Equal(t, "Nothing is changed: the profile says so already.\n", w.looks(t, "profile", "set", "st-mary", string(id), "--gender", "female", "--phone", "555 0100"))
	require.JSONEq(t, `{"org":"st-mary","profile_id":"`+string(id)+`","changed":["birth_date","telecom","addresses"]}`,
		w.looks(t, "profile", "set", "st-mary", string(id), "--phone", "", "--birth-date", "", "--address", "", "-o", "json"))
	v = w.shows(t, id)
	require.Nil(t, v.Record.BirthDate)
	require.Equal(t, []cura.ContactPoint{{System: "email", Value: "ada@example.org"}}, v.Record.Telecom)
	require.Empty(t, v.Record.Addresses)
	require.Len(t, v.Changes, 2)

	out, hints, err := w.decides(t, later, "pat", "profile", "show", "st-mary", string(id))
	require.NoError(t, err)
	for _, part := range []string{"Profile  " + string(id) + " of st-mary", "name.family", "Okafor", "asserted:pat", "birth_date, telecom, addresses"} {
		require.Contains(t, out, part)
	}
	require.NotContains(t, out, "birth_date  ", "what isn't said isn't shown")
	require.Contains(t, hints, "that you have looked at it is recorded")
	require.Equal(t, []string{"asserted:pat success", "asserted:pat success"}, w.audited(t, "profile.changed"))
	require.Len(t, w.audited(t, "profile.viewed"), 3)
	for _, details := range storetest.Query[string](t, w.db, "SELECT details::text FROM audit.records WHERE kind LIKE 'profile.%'") {
		for _, phi := range []string{"Okafor", "1980", "555", "Springfield"} {
			require.NotContains(t, details, phi)
		}
	}
}

func TestOfSeveralContactsTheFirstIsSet(t *testing.T) {
	t.Parallel()
	telecom := []cura.ContactPoint{{System: "email", Value: "a"}, {System: "phone", Value: "1", Use: "home"}, {System: "phone", Value: "2"}}
	require.Equal(t, []cura.ContactPoint{{System: "email", Value: "a"}, {System: "phone", Value: "3", Use: "home"}, {System: "phone", Value: "2"}},
		withContact(append([]cura.ContactPoint{}, telecom...), "phone", "3"))
	require.Equal(t, []cura.ContactPoint{{System: "email", Value: "a"}, {System: "phone", Value: "2"}}, withContact(append([]cura.ContactPoint{}, telecom...), "phone", ""))
	require.Equal(t, telecom, withContact(telecom, "fax", ""))

	addresses := []cura.Address{{Use: "home", City: "Springfield", Text: "old"}, {City: "London"}}
	require.Equal(t, []cura.Address{{Use: "home", Text: "new"}, {City: "London"}}, withAddress(append([]cura.Address{}, addresses...), "new"))
	require.Equal(t, []cura.Address{{City: "London"}}, withAddress(addresses, ""))
	require.Empty(t, withAddress(nil, ""))
}

func TestABirthDateMayBePartial(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		precision cura.Precision
		end       time.Time
	}{
		"1980":       {cura.PrecisionYear, time.Date(1981, 1, 1, 0, 0, 0, 0, time.UTC)},
		"1980-12":    {cura.PrecisionMonth, time.Date(1981, 1, 1, 0, 0, 0, 0, time.UTC)},
		"1980-02-29": {cura.PrecisionDay, time.Date(1980, 3, 1, 0, 0, 0, 0, time.UTC)},
	} {
		m, err := birthDate(text)
		require.NoError(t, err)
		require.Equal(t, text, m.Text)
		require.Equal(t, want.precision, m.Precision)
		require.Equal(t, want.end, m.End)
	}
}

func TestProfileRefuses(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := string(w.profiles["phi-p1"])
	w.does(t, "org", "add", "st-jude")
	w.does(t, "org", "operators", "add", "st-mary", "vera", "--role", "viewer")
	w.does(t, "org", "operators", "add", "st-mary", "pat", "--role", "ops")
	const usage = "usage"
	for name, tc := range map[string]struct {
		line      string
		who, kind string
		says      string
	}{
		"nothing to set":          {"set st-mary " + id, "pat", usage, "nothing is named that is to be changed"},
		"not a date":              {"set st-mary " + id + " --birth-date 30.02.1980", "pat", usage, "--birth-date isn't a date"},
		"not a day":               {"set st-mary " + id + " --birth-date 1980-02-30", "pat", usage, "--birth-date isn't a date"},
		"in the future":           {"set st-mary " + id + " --birth-date 2999", "pat", usage, "--birth-date is in the future"},
		"gender":                  {"set st-mary " + id + " --gender f", "pat", usage, "male, female, other, unknown"},
		"no profile":              {"set st-mary --gender female", "pat", usage, "takes two arguments"},
		"unknown org":             {"show st-none " + id, "pat", string(fault.NotFound), "there is no org"},
		"unknown profile":         {"set st-mary " + uuid.NewString() + " --gender female", "pat", string(fault.NotFound), "the org has no such profile"},
		"an EHR id":               {"show st-mary phi-p1", "pat", string(fault.NotFound), "the org has no such profile"},
		"another org's":           {"show st-jude " + id, "pat", string(fault.NotFound), "the org has no such profile"},
		"set another org's":       {"set st-jude " + id + " --gender female", "pat", string(fault.NotFound), "the org has no such profile"},
		"a viewer sets":           {"set st-mary " + id + " --gender female", "vera", string(fault.Config), "this takes one of: ops, admin"},
		"a stranger wants to see": {"show st-mary " + id, "eve", string(fault.Config), "eve is no operator of org st-mary"},
	} {
		out, _, err := w.decides(t, later, tc.who, append([]string{"profile"}, strings.Fields(tc.line)...)...)
		kind := string(fault.KindOf(err))
		if errors.As(err, new(*usageError)) {
			kind = usage
		}
		require.Equal(t, tc.kind, kind, "%s: %v", name, err)
		require.ErrorContains(t, err, tc.says, name)
		require.Empty(t, out, name)
	}
	require.Equal(t, []int64{0}, storetest.Query[int64](t, w.db, "SELECT count(*) FROM cura.profile_changes"))
	require.Equal(t, []string{"asserted:vera denied"}, w.audited(t, "profile.changed"))
}
