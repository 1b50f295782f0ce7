package seal_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func proofText(tb testing.TB, p seal.Proof) string {
	tb.Helper()
	text, err := json.Marshal(p)
	require.NoError(tb, err)
	return string(text)
}

func TestEveryRecordCanBeProved(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for _, n := range []int{1, 2, 7, 8, 33} {
		m := newLog(n)
		head := m.head(t, key)
		for _, e := range m.records {
			p, err := seal.Prove(e, head, m)
			require.NoError(t, err)
			got, err := seal.CheckProof(strings.NewReader(proofText(t, p)), key.Verifiers())
			require.NoError(t, err)
			require.Equal(t, e, got.Record)
			require.Equal(t, head, got.Head)
		}
	}
}

func TestWhatIsNotInTheLogCannotBeProved(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m := newLog(9)
	head := m.head(t, key)
	forged := record(4)
	forged.Actor = "nobody"
	_, err := seal.Prove(forged, head, m)
	require.ErrorContains(t, err, "record 4, the stored hashes and the signed head don't agree")
	m.stored[0] = tlog.Hash{}
	_, err = seal.Prove(record(2), head, m)
	require.ErrorContains(t, err, "don't agree")
}

// TestProofsThatShowNothing: each says what is wrong with it.
func TestProofsThatShowNothing(t *testing.T) {
	t.Parallel()
	key, other := newKey(t), newKey(t)
	m := newLog(9)
	head := m.head(t, key)
	good, err := seal.Prove(record(4), head, m)
	require.NoError(t, err)
	foreign := seal.Head{Org: orgB, Size: head.Size, Root: head.Root, At: head.At}
	signedForeign, err := key.Sign(foreign)
	require.NoError(t, err)
	longer := newLog(12)
	for name, tc := range map[string]struct {
		change func(*seal.Proof)
		keys   seal.Verifiers
		says   string
	}{
		"another key":             {func(*seal.Proof) {}, other.Verifiers(), "none of the keys given has signed it"},
		"a byte of the record":    {func(p *seal.Proof) { p.Record[len(p.Record)-2] ^= 1 }, nil, "isn't in the log"},
		"a field of the record":   {func(p *seal.Proof) { p.Record[7] ^= 1 }, nil, "isn't an audit record"},
		"a hash":                  {func(p *seal.Proof) { p.Hashes[1][3] ^= 1 }, nil, "isn't in the log"},
		"a hash too few":          {func(p *seal.Proof) { p.Hashes = p.Hashes[1:] }, nil, "isn't in the log"},
		"no hashes":               {func(p *seal.Proof) { p.Hashes = nil }, nil, "isn't in the log"},
		"its number":              {func(p *seal.Proof) { p.Seq = 5 }, nil, "what it says of the record"},
		"another org's head":      {func(p *seal.Proof) { p.Head = signedForeign.Note }, nil, "its head of another's"},
		"the head of another log": {func(p *seal.Proof) { p.Head = longer.head(t, key).Note }, nil, "isn't in the log"},
		"a head too small":        {func(p *seal.Proof) { p.Head = newLog(3).head(t, key).Note }, nil, "covers 3 records, and the record is number 4"},
		"the head's signature":    {func(p *seal.Proof) { p.Head = strings.Replace(p.Head, "\n9\n", "\n10\n", 1) }, nil, "its signature is wrong"},
		"no head":                 {func(p *seal.Proof) { p.Head = "" }, nil, "isn't a signed note"},
		"another format":          {func(p *seal.Proof) { p.Format = "x" }, nil, "isn't a proof in the format"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := good
			p.Record, p.Hashes = bytes.Clone(good.Record), append(tlog.RecordProof(nil), good.Hashes...)
			tc.change(&p)
			keys := tc.keys
			if keys == nil {
				keys = key.Verifiers()
			}
			_, err := seal.CheckProof(strings.NewReader(proofText(t, p)), keys)
			require.ErrorContains(t, err, tc.says)
			_, known := err.(*fault.Error) //nolint:errorlint // it must be one itself
			require.True(t, known)
		})
	}
	for _, text := range []string{"", "{", "[]", "null", proofText(t, good) + "x", `{"format":"cura-ehr-sync audit proof 1","more":1}`} {
		_, err := seal.CheckProof(strings.NewReader(text), key.Verifiers())
		require.Error(t, err, text)
	}
}

// A note of another kind that the key has signed is no head.
func TestANoteThatIsNoHead(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for _, text := range []string{
		"hello\n", "cura-ehr-sync audit x\n1\n" + tlog.Hash{}.String() + "\n2023-11-14T22:13:20Z\n",
		"cura-ehr-sync audit " + string(orgA) + "\n01\n" + tlog.Hash{}.String() + "\n2023-11-14T22:13:20Z\n",
		"cura-ehr-sync audit " + string(orgA) + "\n0\n" + tlog.Hash{}.String() + "\n2023-11-14T22:13:20Z\n",
		"cura-ehr-sync audit " + string(orgA) + "\n1\n" + tlog.Hash{}.String() + "\n2023-11-14 22:13\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, key.Signer())
		require.NoError(t, err)
		_, err = seal.OpenHead(string(signed), key.Verifiers())
		require.ErrorContains(t, err, "isn't the head of an audit log")
	}
}

// FuzzCheckProof: whatever is given as a proof, it is refused or shows what its head was signed for.
func FuzzCheckProof(f *testing.F) {
	key := newKey(f)
	m := newLog(9)
	p, err := seal.Prove(record(4), m.head(f, key), m)
	require.NoError(f, err)
	good := proofText(f, p)
	f.Add(good)
	f.Add(strings.Replace(good, `"seq":4`, `"seq":-9223372036854775808`, 1))
	f.Add(`{"format":"cura-ehr-sync audit proof 1","record":"AAAA","head":"x","hashes":[""]}`)
	f.Add("null")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := seal.CheckProof(strings.NewReader(text), key.Verifiers())
		if err == nil {
			require.Equal(t, record(got.Record.Seq), got.Record)
		}
	})
}
