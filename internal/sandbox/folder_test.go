package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func load(t *testing.T, files map[string]string) (*store, []string, error) {
	t.Helper()
	s, err := newStore()
	require.NoError(t, err)
	problems, err := loadFolder(t.Context(), folder(t, files), s)
	return s, problems, err
}

// Whatever the files are called and however they are laid out, each resource in them is served once.
func TestFolderLayouts(t *testing.T) {
	t.Parallel()
	const p1, p2 = `{"resourceType":"Patient","id":"p1"}`, `{"resourceType":"Patient","id":"p2"}`
	pretty := "{\n  \"resourceType\": \"Patient\",\n  \"id\": \"p1\",\n  \"name\": [\n    {\n      \"text\": \"}{ \\\" [\"\n    }\n  ]\n}\n"
	tests := []struct {
		name     string
		files    map[string]string
		want     map[string]int
		problems []string
	}{
		{"NDJSON", map[string]string{"x.ndjson": p1 + "\n" + p2 + "\n"}, map[string]int{"Patient": 2}, nil},
		{"no newline at the end, CRLF, empty lines", map[string]string{"x": p1 + "\r\n\r\n" + p2}, map[string]int{"Patient": 2}, nil},
		{"byte order mark", map[string]string{"x.json": "\ufeff" + p1}, map[string]int{"Patient": 1}, nil},
		{"any name, subfolders", map[string]string{"a/b/c.txt": p1, "a/Patient": p2}, map[string]int{"Patient": 2}, nil},
		{"pretty-printed", map[string]string{"x.json": pretty}, map[string]int{"Patient": 1}, nil},
		{"pretty-printed, several", map[string]string{"x.json": pretty + p2 + pretty}, map[string]int{"Patient": 2}, []string{"Patient: 1 came again with the same id; the last one is served"}},
		{"on one line", map[string]string{"x.json": p1 + p2}, map[string]int{"Patient": 2}, nil},
		{"array", map[string]string{"x.json": "[" + p1 + "," + p2 + "]"}, map[string]int{"Patient": 2}, nil},
		{"array, a line each, no indent", map[string]string{"x.json": "[\n" + p1 + ",\n" + p2 + "\n]\n"}, map[string]int{"Patient": 2}, nil},
		{"empty array and object file", map[string]string{"x.json": "[]", "y": p1}, map[string]int{"Patient": 1}, nil},
		{
			"not JSON",
			map[string]string{"README.md": "# Data", "badge.md": "[link](x)", "x.ndjson": p1, "empty": "", "blank": "\n \n"},
			map[string]int{"Patient": 1},
			[]string{"README.md: passed over, it holds no JSON", "badge.md: passed over, it holds no JSON", "blank: passed over, it holds no JSON", "empty: passed over, it holds no JSON"},
		},
		{
			"searchset with an outcome",
			map[string]string{"b.json": `{"resourceType":"Bundle","type":"searchset","entry":[
				{"resource":` + p1 + `,"search":{"mode":"match"}},
				{"resource":{"resourceType":"OperationOutcome"},"search":{"mode":"outcome"}}]}`},
			map[string]int{"Patient": 1},
			[]string{"b.json: 1 bundle entries hold no resource to serve"},
		},
		{
			"bundle in a bundle, in an array",
			map[string]string{"b.json": `[{"resourceType":"Bundle","type":"collection","entry":[
				{"resource":{"resourceType":"Bundle","type":"batch","entry":[{"resource":` + p1 + `}]}},{"resource":` + p2 + `}]}]`},
			map[string]int{"Patient": 2},
			nil,
		},
		{
			"history, the newest first",
			map[string]string{"h.json": `{"resourceType":"Bundle","type":"history","entry":[
				{"request":{"method":"DELETE","url":"Patient/p2"}},
				{"resource":{"resourceType":"Patient","id":"p1","active":true}},
				{"resource":{"resourceType":"Patient","id":"p1","active":false}},
				{"resource":` + p2 + `}]}`},
			map[string]int{"Patient": 1},
			[]string{"Patient: 1 came again with the same id; the last one is served"},
		},
		{"types of any kind", map[string]string{"x": `{"resourceType":"Basic","id":"b"}`}, map[string]int{"Basic": 1}, nil},
		{"nothing", map[string]string{}, map[string]int{}, []string{"the data folder holds no FHIR resources"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, problems, err := load(t, tt.files)
			require.NoError(t, err)
			require.Equal(t, tt.want, s.counts())
			require.Equal(t, tt.problems, problems)
			if tt.name == "history, the newest first" {
				require.NoError(t, s.each("Patient", func(_ string, raw json.RawMessage) bool {
					require.Equal(t, "true", string(get(raw, "active")))
					return true
				}))
			}
		})
	}
}

// Broken files are an error at the start that names file and line of every place, up to ten.
func TestFolderBroken(t *testing.T) {
	t.Parallel()
	const ok = `{"resourceType":"Patient","id":"p"}` + "\n"
	tests := []struct {
		name, text string
		want       []string // of the lines of the error
	}{
		{"bad value", ok + `{"resourceType":"Patient","id":}` + "\n" + ok, []string{"f:2: invalid character '}' looking for beginning of value"}},
		{"two of them", ok + "{\"a\" 1}\n" + ok + "{]\n" + ok, []string{"f:2: invalid character '1' after object key", "f:4: ']' stands where '}' should"}},
		{"not closed", `{"resourceType":"Patient"` + "\n" + ok, []string{"f:1: the JSON value that begins here is not closed before line 2"}},
		{"not closed at the end", ok + `{"resourceType":"Patient",` + "\n", []string{"f:2: the JSON value that begins here is not closed before the file ends"}},
		{"open string", `{"resourceType":"Pat` + "\n" + ok, []string{"f:1: a string is not closed before the line ends"}},
		{"within a pretty-printed value", "{\n \"resourceType\":\"Patient\",\n \"id\": 00\n}\n" + ok, []string{"f:3: invalid character '0' after object key:value pair"}},
		{"text between", ok + "oops\n" + ok, []string{"f:2: something other than a JSON object or array stands between the values"}},
		{"no resourceType", ok + `{"id":"x"}`, []string{"f:2: the JSON object has no resourceType"}},
		{"a resourceType that is none", `{"resourceType":"patient"}`, []string{"f:1: its resourceType is not the name of a type"}},
		{"an id that is none", `{"resourceType":"Patient","id":7}`, []string{"f:1: its id is not a FHIR id"}},
		{"an array of other things", "[\n" + strings.TrimSpace(ok) + ",\n7]", []string{"f:3: a resource is needed here, as a JSON object"}},
		{
			"in a bundle", "{\"resourceType\":\"Bundle\",\"entry\":[\n{\"resource\":{\"resourceType\":\"Patient\"}},\n{\"resource\":{\"id\":\"x\"}}]}",
			[]string{"f:3: the JSON object has no resourceType"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Start(t.Context(), Config{DataDir: folder(t, map[string]string{"f": tt.text})})
			require.Error(t, err)
			lines := strings.Split(err.Error(), "\n")
			require.Contains(t, lines[0], "mend or remove them and start again")
			require.Equal(t, tt.want, lines[1:])
		})
	}
}

func TestFolderBrokenManyTimes(t *testing.T) {
	t.Parallel()
	_, _, err := load(t, map[string]string{"a": strings.Repeat("{x}\n", 7), "b": strings.Repeat("{x}\n", 7)})
	require.Error(t, err)
	require.Equal(t, 10, strings.Count(err.Error(), "invalid character"))
	require.Contains(t, err.Error(), "b:3: ")
	require.Contains(t, err.Error(), "there may be more")
}

func TestFolderThatIsNone(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{DataDir: "testdata/absent"})
	require.ErrorContains(t, err, "the data folder does not exist")
	_, err = Start(t.Context(), Config{DataDir: "folder_test.go"})
	require.ErrorContains(t, err, "the data folder is a file")
}

// R4 §2.36.4.1 and §3.1.0.11.2: references within a transaction are the fullUrls of its entries.
func TestFolderReferences(t *testing.T) {
	t.Parallel()
	bundle := `{"resourceType":"Bundle","type":"transaction","entry":[
		{"fullUrl":"urn:uuid:11111111-1111-4111-8111-111111111111","resource":{"resourceType":"Patient"}},
		{"fullUrl":"urn:uuid:22222222-2222-4222-8222-222222222222","resource":{"resourceType":"Encounter","id":"e1",
			"subject":{"reference":"urn:uuid:11111111-1111-4111-8111-111111111111"},
			"participant":[{"individual":{"reference":"Practitioner?identifier=npi|9"}}],
			"reasonReference":[{"reference":"urn:uuid:99999999-9999-4999-8999-999999999999"}]}},
		{"fullUrl":"https://ehr.example/fhir/Condition/c9","resource":{"resourceType":"Condition","subject":{"reference":"Patient/x"}}},
		{"resource":{"resourceType":"Observation","valueString":"no id at all"}}
	]}`
	other := `{"resourceType":"Observation","id":"o1","subject":{"reference":"urn:uuid:11111111-1111-4111-8111-111111111111"},` +
		`"encounter":{"reference" : "urn:uuid:22222222-2222-4222-8222-222222222222"},"note":[{"text":"reference"}],"valueDecimal":1.50}`
	files := map[string]string{"z.json": bundle, "a.ndjson": other}
	s := start(t, Config{DataDir: folder(t, files)})

	require.Equal(t, []string{"11111111-1111-4111-8111-111111111111"}, fetch(t, s, "/Patient").ids(t), "the uuid becomes the id")
	require.Equal(t, []string{"c9"}, fetch(t, s, "/Condition").ids(t), "the id is that of the address")
	raw := string(fetch(t, s, "/Encounter/e1").raw)
	require.Contains(t, raw, `"subject":{"reference":"Patient/11111111-1111-4111-8111-111111111111"}`)
	require.Contains(t, raw, `"reference":"Practitioner?identifier=npi|9"`, "a conditional reference stays")
	require.Contains(t, raw, `"reference":"urn:uuid:99999999-9999-4999-8999-999999999999"`, "one that nothing has stays")
	raw = string(fetch(t, s, "/Observation/o1").raw)
	require.Contains(t, raw, `"encounter":{"reference" : "Encounter/e1"},"note":[{"text":"reference"}],"valueDecimal":1.50`)
	require.Equal(t, []string{"o1"}, fetch(t, s, "/Observation?patient=11111111-1111-4111-8111-111111111111").ids(t),
		"searches see the rewritten reference, from another file too")

	again := start(t, Config{DataDir: folder(t, files)})
	require.Equal(t, fetch(t, s, "/Observation").ids(t), fetch(t, again, "/Observation").ids(t), "ids made up are the same at every start")
}

func TestFolderMeta(t *testing.T) {
	t.Parallel()
	data := map[string]string{"a": `{"resourceType":"Patient","id":"none"}
{"resourceType":"Patient","id":"both","meta":{"versionId":"W7","lastUpdated":"2024-05-06T07:08:09.123456+02:00","tag":[]}}
{"resourceType":"Patient","id":"time","meta":{"lastUpdated":"2024-05-06T07:08:09Z"}}
{"resourceType":"Patient","id":"version","meta":{"versionId":"4"}}`}
	for range 2 { // the same at every start
		s := start(t, Config{DataDir: folder(t, data)})
		meta := func(id string) []byte { return get(fetch(t, s, "/Patient/"+id).raw, "meta") }
		sameBytes(t, `{"versionId":"1","lastUpdated":"2020-01-01T00:00:00.000Z"}`, meta("none"))
		sameBytes(t, `{"versionId":"W7","lastUpdated":"2024-05-06T07:08:09.123456+02:00","tag":[]}`, meta("both"))
		sameBytes(t, `{"versionId":"1","lastUpdated":"2024-05-06T07:08:09Z"}`, meta("time"))
		sameBytes(t, `{"versionId":"4","lastUpdated":"2020-01-01T00:00:00.003Z"}`, meta("version"))
		require.Equal(t, []string{"both"}, fetch(t, s, "/Patient?_lastUpdated=gt2024-05-06T05:08:09.123455Z&_lastUpdated=lt2024-05-06T05:08:09.2Z").ids(t))
		require.Equal(t, http.StatusOK, fetch(t, s, "/Patient/both/_history/W7").status, "R4: a version id is opaque")
	}
}

func TestMRNSystem(t *testing.T) {
	t.Parallel()
	patient := func(id, identifier string) string {
		return `{"resourceType":"Patient","id":"` + id + `","identifier":[` + identifier + `]}`
	}
	coded := func(system, code string) string {
		return `{"system":"` + system + `","value":"1","type":{"coding":[{"code":"` + code + `"}]}}`
	}
	text := `{"system":"urn:text","value":"1","type":{"text":"MRN"}}`
	tests := []struct {
		name string
		data []string
		want string
	}{
		{"the most frequent", []string{patient("1", coded("urn:a", "MR")), patient("2", coded("urn:b", "MR")), patient("3", coded("urn:b", "MR"))}, "urn:b"},
		{"others do not count", []string{patient("1", coded("urn:a", "SS")), patient("2", coded("urn:b", "MR"))}, "urn:b"},
		{"DOMAIN §6: Epic's types are text alone", []string{patient("1", text)}, "urn:text"},
		{"none", []string{patient("1", coded("urn:a", "SS"))}, ""},
		{"no patients", []string{`{"resourceType":"Basic","id":"x"}`}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, serving(t, tt.data...).MRNSystem())
		})
	}
}
