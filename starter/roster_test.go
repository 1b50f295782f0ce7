package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// written is a file with text.
func written(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "roster-file")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// roster reads what roster show says in JSON.
func (d desk) roster(t *testing.T) rosterView {
	t.Helper()
	var v rosterView
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "roster", "show", "main", "-o", "json")), &v))
	return v
}

func TestPatientsAreUploadedAndRemoved(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--profile", "epic")
	out := d.does(t, "roster", "upload", "st-mary/main", written(t, "\uFEFFp1\r\n# a comment\n\n p2 # another\np3"))
	require.Contains(t, out, "Added 3 patients to the roster of st-mary/main; 0 were known already.")
	var result uploadResult
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "roster", "upload", "main", written(t, "p3\np4\n"), "-o", "json")), &result))
	require.Equal(t, uploadResult{Added: 1, Known: 1}, result)

	require.Contains(t, d.does(t, "roster", "remove", "main", written(t, "p1\np9\n")), "Removed 1 patients from the roster of st-mary/main; 1 weren't on it.")
	v := d.roster(t)
	require.Equal(t, map[cura.RosterSource]int{cura.RosterList: 3}, v.Members)
	require.Equal(t, 1, v.Removed)
	require.Equal(t, []string{"asserted:pat"}, storetest.Query[string](t, d.db, "SELECT DISTINCT actor FROM audit.records WHERE kind = 'roster.changed'"))
}

func TestPatientsFromStandardInput(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	got := starterWith(t, "p1\np2\n", "roster", "upload", "main", "-", "--database-url", d.db.URL)
	require.Equal(t, exitDone, got.code, got.err)
	got = starterWith(t, "identifier,family\n1,A\n", "roster", "enrol", "main", "-", "--database-url", d.db.URL)
	require.Equal(t, exitDone, got.code, got.err)
	got = starterWith(t, "", "roster", "enrol", "main", "-", "--database-url", d.db.URL)
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.err, "standard input is empty")
}

// TestBadRosterFiles: what is wrong is named by its line, what the line says is PHI and isn't repeated, nothing is stored.
func TestBadRosterFiles(t *testing.T) {
	t.Parallel()
	const header = "identifier,family,given,birth_date,gender\n"
	tests := map[string]struct {
		command, text string
		says          []string
	}{
		"duplicate ids":         {"upload", "secret-1\nsecret-2\nsecret-1\nsecret-2\n", []string{"lines 1 and 3 name the same patient", "lines 2 and 4"}},
		"a reference":           {"upload", "Patient/secret-1\n", []string{"line 1 isn't the id of one Patient", "Nothing was stored"}},
		"two ids in a line":     {"upload", "p1\nsecret-1 secret-2\n", []string{"line 2"}},
		"no id":                 {"upload", "# nobody\n\n", []string{"names no patient"}},
		"wrong throughout":      {"upload", strings.Repeat("secret/\n", 30), []string{"line 1 ", "line 10 ", "and 20 more"}},
		"duplicates to remove":  {"remove", "secret-1\nsecret-1\n", []string{"lines 1 and 2"}},
		"empty":                 {"enrol", "", []string{"is empty", "identifier,family"}},
		"no header":             {"enrol", "secret-1,secret-2\n", []string{"column 1 of line 1 has no name that is known"}},
		"a column twice":        {"enrol", "identifier,identifier\n", []string{"names the column identifier twice"}},
		"no identifier column":  {"enrol", "family,birth_date\n", []string{"names no column identifier"}},
		"nothing to verify by":  {"enrol", "identifier,given\nsecret-1,secret-2\n", []string{"neither family nor birth_date"}},
		"header alone":          {"enrol", header, []string{"names nobody"}},
		"duplicate identifiers": {"enrol", header + "secret-1,secret,,,\nx,A,,,\nsecret-1,secret,,,\n", []string{"lines 2 and 4 have the same identifier"}},
		"no identifier":         {"enrol", header + ",secret,,1970-01-01,\n", []string{"line 2 has no identifier"}},
		"neither name nor date": {"enrol", header + "secret-1,,secret,,male\n", []string{"line 2 has neither a family name nor a birth date"}},
		"an odd date":           {"enrol", header + "secret-1,secret,,31.12.1970,\n", []string{"line 2 has a birth_date that isn't YYYY-MM-DD"}},
		"a date to come":        {"enrol", header + "secret-1,secret,,2970-01-01,\n", []string{"line 2 has a birth_date"}},
		"an odd gender":         {"enrol", header + "secret-1,secret,,,secret\n", []string{"line 2 has a gender"}},
		"a placeholder":         {"enrol", header + "000-00-0000,secret,,,\n", []string{"line 2 has an identifier that says nothing"}},
		"too few fields":        {"enrol", header + "secret-1,secret\n", []string{"line 2 hasn't as many fields"}},
		"an open quote":         {"enrol", header + "\"secret-1,secret,,,\n", []string{"isn't CSV"}},
		"several at once":       {"enrol", header + ",secret,,,\nsecret-1,,,,\nsecret-2,secret,,x,\n", []string{"line 2 ", "line 3 ", "line 4 "}},
		"not text":              {"enrol", header + "secret-1,\xff\xfe,,,\n", []string{"isn't UTF-8"}},
	}
	d := newDesk(t)
	d.addMain(t)
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := d.starter(t, "roster", tc.command, "main", written(t, tc.text))
			require.Equal(t, exitUsage, got.code, got.err)
			for _, part := range tc.says {
				require.Contains(t, got.err, part)
			}
			require.NotContains(t, got.err+got.out, "secret")
			require.Empty(t, storetest.Query[string](t, d.db, "SELECT value FROM sync.enrolments UNION ALL SELECT ehr_id FROM sync.roster"))
		})
	}
}

func TestPeopleAreEnrolledFromCSV(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--profile", "epic")
	file := written(t, "\uFEFFBirth_Date, Identifier ,family\n1970-02-03,0100,\"O'Neil, the \"\"elder\"\"\"\n, 0200 ,Müller\n1971,0300,\n")
	require.Contains(t, d.does(t, "roster", "enrol", "main", file), "Enrolled 3 of st-mary/main: 3 new, 0 to be asked for again, 0 known already.")
	require.Equal(t, []string{"0100|O'Neil, the \"elder\"|1970-02-03|2", "0200|Müller||3", "0300||1971|4"},
		storetest.Query[string](t, d.db, "SELECT value || '|' || family || '|' || birth_date || '|' || line FROM sync.enrolments ORDER BY line"))

	conn := d.settings(t)
	require.NoError(t, d.db.InOrg(t.Context(), conn.OrgID, func(tx *store.Tx) error {
		due, err := tx.DueEnrolments(t.Context(), conn.ID, 10)
		require.NoError(t, err)
		for i, s := range []store.Settlement{
			{State: store.EnrolmentFound, EHRID: "phi-1"},
			{State: store.EnrolmentNotFound, Reason: "no patient of the EHR carries the identifier"},
			{State: store.EnrolmentAmbiguous, Reason: "2 patients of the EHR carry the identifier"},
		} {
			if _, err := tx.SettleEnrolment(t.Context(), conn.ID, due[i].ID, s); err != nil {
				return err
			}
		}
		return nil
	}))
	got := d.starter(t, "roster", "show", "main")
	for _, part := range []string{
		"whom Cura knows", "1 (1 by enrolment)", "1 found, 1 not found, 1 ambiguous", "Patient, AllergyIntolerance", "no patient of the EHR carries the identifier",
		"2 patients of the EHR carry the identifier",
	} {
		require.Contains(t, got.out, part)
	}
	for _, phi := range []string{"phi-1", "0100", "0300", "Müller", "1971"} {
		require.NotContains(t, got.out+d.does(t, "roster", "show", "main", "-o", "json"), phi)
	}
	v := d.roster(t)
	require.Len(t, v.Open, 2)
	require.Equal(t, 4, v.Open[0].Line)

	var counts store.EnrolCounts
	require.NoError(t, json.Unmarshal([]byte(d.does(t, "roster", "enrol", "main", file, "-o", "json")), &counts))
	require.Equal(t, store.EnrolCounts{Again: 2, Known: 1}, counts)
}

func TestAGroupFeedsTheRoster(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--profile", "oracle")
	d.does(t, "roster", "group", "main", "mylist|42")
	conn := d.settings(t)
	require.Equal(t, cura.RosterGroup, conn.RosterSource)
	require.Equal(t, "mylist|42", conn.GroupID)
	require.Contains(t, conn.Scopes, "system/Group.read", "the token must let Cura read it")
	require.Contains(t, d.does(t, "roster", "show", "main"), "the Group mylist|42 of the EHR")

	for _, id := range []string{"Group/1", "..", "a b", "?x"} {
		require.Equal(t, exitUsage, d.starter(t, "roster", "group", "main", id).code, id)
	}
	d.does(t, "connection", "edit", "main", "--roster-source", "list")
	conn = d.settings(t)
	require.Equal(t, cura.RosterList, conn.RosterSource)
	require.Empty(t, conn.GroupID)
	require.NotContains(t, conn.Scopes, "system/Group.read")
}

func TestARosterNobodyReadsByIsSaidToBeUnused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t)
	require.Contains(t, d.does(t, "roster", "show", "main"), "the roster isn't used")
	require.Empty(t, d.roster(t).ReadBy)
}

func TestRosterUsage(t *testing.T) {
	t.Parallel()
	file := written(t, "p1\n")
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no file":        {[]string{"roster", "upload", "main"}, "takes two arguments, the connection and the file of patient ids"},
		"no group":       {[]string{"roster", "group", "main"}, "the Group's id"},
		"file not there": {[]string{"roster", "remove", "main", file + "-not"}, "no such file"},
		"csv not there":  {[]string{"roster", "enrol", "main", file + "-not"}, "no such file"},
		"a word":         {[]string{"roster", "refresh"}, "starter roster has: show, enrol, upload, group, remove"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := starter(t, append(tc.args, "--database-url", nowhere)...)
			require.Equal(t, exitUsage, got.code, got.err)
			require.Contains(t, got.err, tc.says)
		})
	}
	d := newDesk(t)
	d.addMain(t)
	missing := d.starter(t, "roster", "upload", "nope", file)
	require.Equal(t, exitFailed, missing.code)
	require.Contains(t, missing.err, "starter connection list")
}
