package sandbox

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEdits(t *testing.T) {
	t.Parallel()
	const doc = `{ "a" : 1.50, "b":{"c":[1,{"d":"}"}]} , "e\"":"x" }`
	tests := []struct{ name, got, want string }{
		{"set replaces", string(set([]byte(doc), "a", []byte("2"))), `{ "a" : 2, "b":{"c":[1,{"d":"}"}]} , "e\"":"x" }`},
		{"set adds behind", string(set([]byte(doc), "n", []byte("2"), "b")), `{ "a" : 1.50, "b":{"c":[1,{"d":"}"}]},"n":2 , "e\"":"x" }`},
		{"set adds at the front", string(set([]byte(doc), "n", []byte("2"), "zz")), `{"n":2, "a" : 1.50, "b":{"c":[1,{"d":"}"}]} , "e\"":"x" }`},
		{"set in an empty object", string(set([]byte(`{ }`), "n", []byte("2"))), `{"n":2 }`},
		{"drop the first", string(drop([]byte(doc), "a")), `{ "b":{"c":[1,{"d":"}"}]} , "e\"":"x" }`},
		{"drop the middle", string(drop([]byte(doc), "b")), `{ "a" : 1.50, "e\"":"x" }`},
		{"drop the last", string(drop([]byte(doc), `e"`)), `{ "a" : 1.50, "b":{"c":[1,{"d":"}"}]} }`},
		{"drop the only", string(drop([]byte(`{"a":1}`), "a")), `{}`},
		{"drop what is not there", string(drop([]byte(doc), "zz")), doc},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, tt.got)
			require.True(t, json.Valid([]byte(tt.got)))
		})
	}
	require.Empty(t, members([]byte(`[1]`)))
	require.Empty(t, elements([]byte(`{}`)))
	require.Equal(t, `x"y`, getText([]byte(`{"a":"x\"y"}`), "a"))
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"a":[{},"\\",-1.5e3,null,true],"b":{"":{"reference":"urn:uuid:1"}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		// Whatever valid JSON comes, the pieces are valid JSON, and edits leave valid JSON.
		all := members(raw)
		for _, m := range all {
			require.True(t, json.Valid(raw[m.value.start:m.value.end]))
			require.True(t, json.Valid(drop(raw, m.key)))
			require.True(t, json.Valid(set(raw, m.key, []byte(`0`))))
		}
		for _, e := range elements(raw) {
			require.True(t, json.Valid(raw[e.start:e.end]))
		}
		require.True(t, json.Valid(rewriteReferences(raw, func(string) (string, bool) { return `a"b`, true })))
	})
}
