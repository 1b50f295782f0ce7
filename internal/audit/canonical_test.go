package audit_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/cura"
)

func entries() *rapid.Generator[audit.Entry] {
	return rapid.Custom(func(t *rapid.T) audit.Entry {
		text := rapid.String()
		return audit.Entry{
			Org: cura.OrgID(text.Draw(t, "org")), Seq: rapid.Int64().Draw(t, "seq"), At: rapid.Int64().Draw(t, "at"),
			Kind: audit.Kind(text.Draw(t, "kind")), Actor: text.Draw(t, "actor"), Connection: cura.ConnectionID(text.Draw(t, "connection")),
			Run: text.Draw(t, "run"), Outcome: audit.Outcome(text.Draw(t, "outcome")), Details: text.Draw(t, "details"),
		}
	})
}

// The form is kept for years: what is sealed today has to hash to the same then.
func TestTheCanonicalFormDoesNotChange(t *testing.T) {
	t.Parallel()
	e := audit.Entry{
		Org: "0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10", Seq: 7, At: 1_700_000_000_000_001, Kind: audit.PageRead, Actor: "worker",
		Outcome: audit.Success, Details: `{"served":20}`,
	}
	require.Equal(t, "\x00\x00\x00\x1ccura-ehr-sync audit record 1"+
		"\x00\x00\x00\x240b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10"+"\x00\x00\x00\x017"+"\x00\x00\x00\x101700000000000001"+
		"\x00\x00\x00\x09page.read"+"\x00\x00\x00\x06worker"+"\x00\x00\x00\x00"+"\x00\x00\x00\x00"+"\x00\x00\x00\x07success"+"\x00\x00\x00\x0d"+`{"served":20}`,
		string(e.AppendCanonical(nil)))
	require.Equal(t, "2023-11-14T22:13:20.000001Z", e.Record().At.Format("2006-01-02T15:04:05.000000Z07:00"))
}

func TestNoTwoRecordsHaveTheSameCanonicalForm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := entries().Draw(t, "a"), entries().Draw(t, "b")
		parsed, err := audit.ParseCanonical(a.AppendCanonical(nil))
		require.NoError(t, err)
		require.Equal(t, a, parsed, "nothing of a record is lost")
		require.Equal(t, a == b, bytes.Equal(a.AppendCanonical(nil), b.AppendCanonical(nil)))
	})
}

func FuzzParseCanonical(f *testing.F) {
	f.Add(audit.Entry{Org: "a", Seq: 1, Details: "{}"}.AppendCanonical(nil))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := audit.ParseCanonical(b)
		if err == nil {
			require.Equal(t, b, e.AppendCanonical(nil), "only the canonical form is read")
		}
	})
}
