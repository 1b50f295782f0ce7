package fhir_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/fhir"
)

// read collects the entries of a body.
func read(t *testing.T, body string, maxResource int64) (fhir.Bundle, []fhir.Entry, error) {
	t.Helper()
	var entries []fhir.Entry
	b, err := fhir.ReadBundle(strings.NewReader(body), maxResource, func(e fhir.Entry) error {
		entries = append(entries, e)
		return nil
	})
	return b, entries, err
}

func TestReadBundle(t *testing.T) {
	t.Parallel()
	const resource = `{"resourceType":"Observation", "meta":{"versionId":"7","lastUpdated":"2026-01-02T03:04:05Z"}, "id":"o1"}`
	b, entries, err := read(t, `{
		"resourceType": "Bundle", "id": "b", "type": "searchset", "total": 2,
		"link": [{"relation":"self","url":"https://ehr.example/Observation?a=1"},{"relation":"next","url":"?page=2"}],
		"entry": [
			{"fullUrl":"https://ehr.example/Observation/o1",
			 "resource": `+resource+`,
			 "search":{"mode":"match","score":1}},
			{"search":{"mode":"outcome"},"resource":{"resourceType":"OperationOutcome"}}
		]}`, 0)
	require.NoError(t, err)
	require.Equal(t, "searchset", b.Type)
	require.Equal(t, 2, *b.Total)
	require.Equal(t, map[string]string{"self": "https://ehr.example/Observation?a=1", "next": "?page=2"}, b.Links)
	require.Nil(t, b.Outcome)
	require.Len(t, entries, 2)

	first := entries[0]
	require.Equal(t, "match", first.Mode)
	require.Equal(t, "https://ehr.example/Observation/o1", first.FullURL)
	require.Equal(t, "Observation", first.Type)
	require.Equal(t, "o1", first.ID)
	require.Equal(t, "7", first.VersionID)
	require.Equal(t, "2026-01-02T03:04:05Z", first.LastUpdated)
	require.True(t, bytes.Equal([]byte(resource), first.Resource), "the bytes stay exactly as received")
	require.Equal(t, int64(len(first.Resource)), first.Size)
	hash, err := fhir.Hash(first.Resource)
	require.NoError(t, err)
	require.Equal(t, hash, first.Hash)
	require.Equal(t, "outcome", entries[1].Mode)
}

// What real servers do and a reader must take (DOMAIN.md §2).
func TestReadBundleTolerates(t *testing.T) {
	t.Parallel()
	const patient = `{"resourceType":"Patient","id":"p"}`
	for _, tt := range []struct {
		name    string
		body    string
		entries int
		next    string
	}{
		{"links after the entries", `{"resourceType":"Bundle","entry":[{"resource":` + patient + `}],"link":[{"relation":"next","url":"n"}]}`, 1, "n"},
		{"resourceType last", `{"entry":[{"resource":` + patient + `}],"resourceType":"Bundle"}`, 1, ""},
		{"an empty page with a next link", `{"resourceType":"Bundle","entry":[],"link":[{"relation":"next","url":"n"}]}`, 0, "n"},
		{"no entry member", `{"resourceType":"Bundle","type":"searchset"}`, 0, ""},
		{"entry is null", `{"resourceType":"Bundle","entry":null}`, 0, ""},
		{"a null entry", `{"resourceType":"Bundle","entry":[null]}`, 1, ""},
		{"an entry without a resource", `{"resourceType":"Bundle","entry":[{"fullUrl":"u"},{"resource":null}]}`, 2, ""},
		{"a byte order mark", "\xef\xbb\xbf" + `{"resourceType":"Bundle"}`, 0, ""},
		{"entry twice", `{"resourceType":"Bundle","entry":[{"resource":` + patient + `}],"entry":[{"resource":` + patient + `}]}`, 2, ""},
		{"a total that isn't a number", `{"resourceType":"Bundle","total":"many"}`, 0, ""},
		{"members of other kinds", `{"resourceType":"Bundle","meta":{"a":[1,{"b":"}"}]},"timestamp":"x","signature":null}`, 0, ""},
		{"escaped names", `{"resource\u0054ype":"Bundle","entr\u0079":[{"resource":` + patient + `}]}`, 1, ""},
		{"white space everywhere", " \r\n{ \"resourceType\" :\t\"Bundle\" , \"entry\" : [ { \"resource\" : " + patient + " } ] } \n", 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, chunk := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
				var entries []fhir.Entry
				b, err := fhir.ReadBundle(chunk(strings.NewReader(tt.body)), 0, func(e fhir.Entry) error {
					entries = append(entries, e)
					return nil
				})
				require.NoError(t, err)
				require.Len(t, entries, tt.entries)
				require.Equal(t, tt.next, b.Links["next"])
				require.Nil(t, b.Total)
			}
		})
	}
}

func TestReadBundleKeepsABrokenResourceApart(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	for name, broken := range map[string]string{
		"a missing value":        `{"resourceType":"Patient","id":}`,
		"a leading zero":         `{"resourceType":"Patient","multipleBirthInteger":01}`,
		"an escape of no kind":   `{"resourceType":"Patient","id":"\q"}`,
		"a raw line break":       "{\"id\":\"a\nb\"}",
		"bytes that aren't text": "{\"id\":\"\xff\xfe\"}",
		"not an object":          `[1,2]`,
		"nested too deep":        `{"a":` + deep + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := `{"resourceType":"Bundle","entry":[{"resource":` + broken + `},{"resource":{"resourceType":"Patient","id":"fine"}}]}`
			_, entries, err := read(t, body, 0)
			require.NoError(t, err)
			require.Len(t, entries, 2)
			require.Equal(t, broken, string(entries[0].Resource))
			require.Equal(t, "fine", entries[1].ID)
		})
	}
}

func TestReadBundleOversize(t *testing.T) {
	t.Parallel()
	big := `{"resourceType":"Observation","id":"big","meta":{"versionId":"3"},"status":"final","note":"` + strings.Repeat("x", 1<<20) + `"}`
	body := `{"resourceType":"Bundle","entry":[{"resource":` + big + `},{"resource":{"id":"small"}}]}`
	_, entries, err := read(t, body, 1024)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	e := entries[0]
	require.True(t, e.Oversize)
	require.Nil(t, e.Resource)
	require.Equal(t, int64(len(big)), e.Size)
	require.Equal(t, "Observation", e.Type)
	require.Equal(t, "big", e.ID)
	require.Equal(t, "3", e.VersionID)
	require.Equal(t, sha256.Sum256([]byte(big)), e.Hash)
	require.False(t, entries[1].Oversize)
	require.Equal(t, "small", entries[1].ID)
}

func TestReadBundleCapIsExact(t *testing.T) {
	t.Parallel()
	resource := `{"id":"1234"}`
	body := `{"resourceType":"Bundle","entry":[{"resource":` + resource + `}]}`
	_, entries, err := read(t, body, int64(len(resource)))
	require.NoError(t, err)
	require.False(t, entries[0].Oversize)
	_, entries, err = read(t, body, int64(len(resource))-1)
	require.NoError(t, err)
	require.True(t, entries[0].Oversize)
}

func TestReadBundleOutcome(t *testing.T) {
	t.Parallel()
	outcome := `{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"throttled"}]}`
	b, entries, err := read(t, "\n"+outcome+"\n", 0)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.JSONEq(t, outcome, string(b.Outcome))
	require.Empty(t, b.Type)
}

func TestReadBundleRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body string
		kind       fault.Kind
		says       string
	}{
		{"HTML", "<!DOCTYPE html><html><body>Sign in</body></html>", fault.Protocol, "HTML"},
		{"HTML after a declaration", "  <?xml version='1.0'?><HTML></HTML>", fault.Protocol, "HTML"},
		{"XML", `<Bundle xmlns="http://hl7.org/fhir"/>`, fault.Protocol, "XML"},
		{"text", "Bad gateway", fault.Protocol, "something that isn't JSON"},
		{"nothing", "", fault.Protocol, "an empty body"},
		{"blanks", " \n", fault.Protocol, "an empty body"},
		{"an array", `[{"resourceType":"Bundle"}]`, fault.Protocol, "JSON but not an object"},
		{"a number", "12", fault.Protocol, "JSON but not an object"},
		{"another resource", `{"resourceType":"Patient","id":"secret"}`, fault.Protocol, "JSON but resourceType Patient"},
		{"a name in place of a type", `{"resourceType":"Jane Secret"}`, fault.Protocol, "isn't one of R4"},
		{"no resourceType", `{"hello":"secret"}`, fault.Protocol, "JSON without a resourceType"},
		{"links of another kind", `{"resourceType":"Bundle","link":"secret"}`, fault.Protocol, "link can't be read"},
		{"entry of another kind", `{"resourceType":"Bundle","entry":{"secret":1}}`, fault.Protocol, "broken JSON"},
		{"brackets that don't match", `{"resourceType":"Bundle","entry":[{"resource":{"secret":[1}}]}`, fault.Protocol, "broken JSON"},
		{"a missing comma", `{"resourceType":"Bundle" "type":"secret"}`, fault.Protocol, "broken JSON"},
		{"two bodies", `{"resourceType":"Bundle"}{"resourceType":"Bundle"}`, fault.Protocol, "more after the end"},
		{"deeper than any page", `{"resourceType":"Bundle","x":` + strings.Repeat("[", 20_000), fault.Protocol, "10,000 levels"},
		{"cut off", `{"resourceType":"Bundle","entry":[{"resource":{"id":"secr`, fault.Transient, "ends in the middle"},
		{"cut off between members", `{"resourceType":"Bundle",`, fault.Transient, "ends in the middle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := read(t, tt.body, 0)
			require.Equal(t, tt.kind, fault.KindOf(err))
			require.ErrorContains(t, err, tt.says)
			require.NotContains(t, strings.ToLower(err.Error()), "secret")
		})
	}
}

func TestReadBundlePassesErrorsOn(t *testing.T) {
	t.Parallel()
	const start = `{"resourceType":"Bundle","entry":[{"resource":{}}`
	keep := func(fhir.Entry) error { return nil }

	_, err := fhir.ReadBundle(io.MultiReader(strings.NewReader(start), iotest.ErrReader(context.Canceled)), 0, keep)
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, fault.Is(err, fault.Transient))

	own := fault.New("reading the body", fault.Network, "too slow")
	_, err = fhir.ReadBundle(io.MultiReader(strings.NewReader(start), iotest.ErrReader(own)), 0, keep)
	require.Same(t, own, err)

	stop := errors.New("stop")
	_, err = fhir.ReadBundle(strings.NewReader(start), 0, func(fhir.Entry) error { return stop })
	require.Same(t, stop, err)
}

// counter counts what was read through it.
type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// Each entry is yielded as soon as it is there: the reader runs ahead of it by no more than its buffer.
func TestReadBundleStreams(t *testing.T) {
	t.Parallel()
	const start, n, buffer = `{"resourceType":"Bundle","entry":[`, 64, 64 << 10
	entry := fmt.Sprintf(`{"resource":{"resourceType":"Observation","id":"x","note":%q}},`, strings.Repeat("y", 1<<20))
	body := &counter{r: strings.NewReader(start + strings.Repeat(entry, n) + `{}]}`)}
	count := 0
	_, err := fhir.ReadBundle(body, 4096, func(e fhir.Entry) error {
		count++
		require.Equal(t, count <= n, e.Oversize)
		require.LessOrEqual(t, body.n, len(start)+count*len(entry)+buffer)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, n+1, count)
}

func TestHead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, raw string
		want      fhir.ResourceHead
		wantErr   bool
	}{
		{"whole", `{"id":"1","meta":{"lastUpdated":"t","versionId":"v"},"resourceType":"Patient"}`, fhir.ResourceHead{Type: "Patient", ID: "1", VersionID: "v", LastUpdated: "t"}, false},
		{"without meta", `{"resourceType":"Patient","id":"1"}`, fhir.ResourceHead{Type: "Patient", ID: "1"}, false},
		{"escapes", `{"resourceType":"Pati\u0065nt","\u0069d":"1\/2"}`, fhir.ResourceHead{Type: "Patient", ID: "1/2"}, false},
		{"an inner id isn't the id", `{"resourceType":"Patient","contained":[{"id":"inner"}]}`, fhir.ResourceHead{Type: "Patient"}, false},
		{"kinds that don't belong", `{"resourceType":1,"id":[],"meta":"x"}`, fhir.ResourceHead{}, false},
		{"cut off", `{"resourceType":"Patient","id":"1","meta":{"versionId":"v","lastUp`, fhir.ResourceHead{Type: "Patient", ID: "1", VersionID: "v"}, true},
		{"broken", `nope`, fhir.ResourceHead{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := fhir.Head([]byte(tt.raw))
			require.Equal(t, tt.wantErr, err != nil)
			require.Equal(t, tt.want, got)
		})
	}
}

func FuzzReadBundle(f *testing.F) {
	for _, seed := range []string{
		`{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","id":"1"}}],"link":[]}`,
		`{"resourceType":"OperationOutcome"}`, `<html>`, `{"entry":[{"resource":"\ud83d\ude00"}]}`, `{"resourceType":"Bundle","entry":[nul`,
	} {
		f.Add([]byte(seed), int64(64))
	}
	f.Fuzz(func(t *testing.T, body []byte, limit int64) {
		var total int64
		_, err := fhir.ReadBundle(bytes.NewReader(body), limit, func(e fhir.Entry) error {
			total += e.Size
			require.Equal(t, e.Resource == nil, e.Oversize || e.Size == 0)
			return nil
		})
		require.LessOrEqual(t, total, int64(len(body)), "no byte is counted twice")
		if err != nil {
			var known *fault.Error
			require.ErrorAs(t, err, &known)
		}
	})
}
