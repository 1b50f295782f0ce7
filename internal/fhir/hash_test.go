package fhir_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/fhir"
)

func hashOf(t require.TestingT, raw string) [32]byte {
	h, err := fhir.Hash([]byte(raw))
	require.NoError(t, err, raw)
	return h
}

func TestHashLeavesOutWhatMoves(t *testing.T) {
	t.Parallel()
	base := hashOf(t, `{"resourceType":"Patient","id":"1","gender":"female"}`)
	for name, same := range map[string]string{
		"versionId":            `{"resourceType":"Patient","id":"1","meta":{"versionId":"2"},"gender":"female"}`,
		"all that moves":       `{"meta":{"source":"#x","lastUpdated":"2026-01-01T00:00:00Z","versionId":"2","_source":{}},"resourceType":"Patient","id":"1","gender":"female"}`,
		"an empty meta":        `{"resourceType":"Patient","meta":{},"id":"1","gender":"female"}`,
		"escaped member names": `{"resourceType":"Patient","me\u0074a":{"versio\u006eId":"9"},"id":"1","gender":"female"}`,
	} {
		require.Equal(t, base, hashOf(t, same), name)
	}
	for name, other := range map[string]string{
		"a profile in meta":      `{"resourceType":"Patient","id":"1","meta":{"profile":["p"]},"gender":"female"}`,
		"a security label":       `{"resourceType":"Patient","id":"1","meta":{"versionId":"1","security":[{"code":"R"}]},"gender":"female"}`,
		"a version further down": `{"resourceType":"Patient","id":"1","contained":[{"meta":{"versionId":"2"}}],"gender":"female"}`,
		"another value":          `{"resourceType":"Patient","id":"1","gender":"male"}`,
	} {
		require.NotEqual(t, base, hashOf(t, other), name)
	}
}

func TestHashKeepsDigits(t *testing.T) {
	t.Parallel()
	seen := map[[32]byte]string{}
	for _, number := range []string{"5.4", "5.40", "54e-1", "5", "5.0", "-0", "0", `"5.4"`, "null", "true"} {
		h := hashOf(t, `{"value":`+number+`}`)
		require.Empty(t, seen[h], "%s and %s must differ", seen[h], number)
		seen[h] = number
	}
}

func TestHashRefusesBrokenJSON(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"a":`, fhir.MaxDepth+1) + "1" + strings.Repeat("}", fhir.MaxDepth+1)
	for _, raw := range []string{"", "{", `{"a"}`, `{"a":01}`, `{"a":1}x`, `{"a":"\x"}`, "{\"a\":\"\n\"}", `{"a":1,}`, `[1,]`, `{"a":.5}`, `{"a":nul}`, deep} {
		_, err := fhir.Hash([]byte(raw))
		require.Error(t, err, raw)
	}
}

// node draws a JSON value.
func node(depth int) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.String().AsAny(),
		rapid.Custom(func(t *rapid.T) json.Number {
			return json.Number(rapid.StringMatching(`-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number"))
		}).AsAny(),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	inner := node(depth - 1)
	return rapid.OneOf(append(leaves,
		rapid.SliceOfN(inner, 0, 4).AsAny(),
		rapid.MapOfN(rapid.String(), inner, 0, 4).AsAny())...)
}

// write writes a JSON value with members, white space and escapes as the draws have it.
func write(t *rapid.T, b *strings.Builder, value any) {
	blank := func() { b.WriteString(rapid.SampledFrom([]string{"", " ", "\n\t", "\r "}).Draw(t, "blank")) }
	blank()
	switch v := value.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		b.WriteByte('{')
		for i, k := range rapid.Permutation(keys).Draw(t, "keys") {
			if i > 0 {
				b.WriteByte(',')
			}
			blank()
			writeString(t, b, k)
			blank()
			b.WriteByte(':')
			write(t, b, v[k])
		}
		blank()
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			write(t, b, v[i])
		}
		blank()
		b.WriteByte(']')
	case string:
		writeString(t, b, v)
	case nil:
		b.WriteString("null")
	default:
		fmt.Fprint(b, v)
	}
	blank()
}

func writeString(t *rapid.T, b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r < ' ' || r == '"' || r == '\\' || rapid.Bool().Draw(t, "escape"):
			if r == '/' {
				b.WriteString(`\/`)
				continue
			}
			quoted := strconv.QuoteToASCII(string(r))
			if r > 0xffff || !strings.HasPrefix(quoted, `"\u`) {
				high, low := r, rune(-1)
				if r > 0xffff {
					high, low = 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff
				}
				fmt.Fprintf(b, `\u%04X`, high)
				if low >= 0 {
					fmt.Fprintf(b, `\u%04x`, low)
				}
				continue
			}
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

func TestHashIgnoresTheSpelling(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := node(3).Draw(t, "value")
		var one, other strings.Builder
		write(t, &one, value)
		write(t, &other, value)
		require.Equal(t, hashOf(t, one.String()), hashOf(t, other.String()))
	})
}

func TestHashSeesEachChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := map[string]any{"resourceType": "Observation", "extra": node(2).Draw(t, "extra")}
		var one strings.Builder
		write(t, &one, value)
		value["extra"] = []any{value["extra"]}
		var other strings.Builder
		write(t, &other, value)
		require.NotEqual(t, hashOf(t, one.String()), hashOf(t, other.String()))
	})
}
