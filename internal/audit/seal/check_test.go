package seal_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func TestALogThatNobodyChanged(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for _, tc := range []struct {
		name         string
		n            int
		sizes        []int
		sealed, seen int
	}{
		{"empty", 0, nil, 0, 0},
		{"not sealed", 5, nil, 0, 0},
		{"one record", 1, []int{1}, 1, 1},
		{"sealed to the end", 10, []int{3, 7, 10}, 10, 3},
		{"records after the last head", 12, []int{3, 7}, 7, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m, folder, _ := sealedLog(t, key, tc.n, tc.sizes...)
			got, err := check(t, m, folder, key.Verifiers())
			require.NoError(t, err)
			require.Nil(t, got.Bad)
			require.EqualValues(t, tc.n, got.Records)
			require.EqualValues(t, tc.sealed, got.Last.Size)
			require.Equal(t, tc.seen, got.Heads)
			require.False(t, got.Unfinished)
		})
	}
}

// tamper changes a log in one of the ways in which it can be changed at a record; it gives the first record that is bad.
func tamper(m *memory, how string, at int) int64 {
	renumber := func(from int) {
		for i := from; i < len(m.records); i++ {
			m.records[i].Seq = int64(i + 1)
		}
	}
	switch how {
	case "edited":
		m.records[at].Actor = "nobody"
	case "details":
		m.records[at].Details += " "
	case "deleted":
		m.records = slices.Delete(m.records, at, at+1)
	case "deleted and renumbered":
		m.records = slices.Delete(m.records, at, at+1)
		renumber(at)
	case "inserted":
		m.records = slices.Insert(m.records, at, record(int64(at+1)))
		m.records[at].Actor = "mallory"
		renumber(at)
	case "there twice":
		m.records = slices.Insert(m.records, at, m.records[at])
	case "swapped":
		m.records[at], m.records[at+1] = m.records[at+1], m.records[at]
		renumber(at)
	case "cut off":
		m.records = m.records[:at]
	case "replaced":
		for i := at; i < len(m.records); i++ {
			m.records[i].Details = "{}"
		}
	}
	return int64(at + 1)
}

func ways() []string {
	return []string{"edited", "details", "deleted", "deleted and renumbered", "inserted", "there twice", "swapped", "cut off", "replaced"}
}

// TestAnyChangeBeforeTheLastHeadIsFound: whatever the sizes of the heads, wherever the change, the first bad record is named; where the
// stored hashes were changed as well, a range that holds it.
func TestAnyChangeBeforeTheLastHeadIsFound(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(2, 60).Draw(r, "n")
		sizes := append(rapid.SliceOf(rapid.IntRange(1, n)).Draw(r, "sizes"), n)
		slices.Sort(sizes)
		m, folder, _ := sealedLog(t, key, n, slices.Compact(sizes)...)
		how := rapid.SampledFrom(ways()).Draw(r, "how")
		first := tamper(m, how, rapid.IntRange(0, n-2).Draw(r, "at"))
		broken := rapid.Bool().Draw(r, "the stored hashes too")
		if broken {
			for _, e := range m.records {
				m.append(e) // stores the hashes of what is there now
			}
			m.records = m.records[:len(m.records)/2]
		}
		got, err := check(t, m, folder, key.Verifiers())
		require.NoError(r, err)
		require.NotNil(r, got.Bad)
		require.True(r, got.Bad.Sealed)
		if !broken {
			require.Equal(r, first, got.Bad.From, got.Bad.String())
			require.Equal(r, first, got.Bad.To)
		}
		require.LessOrEqual(r, got.Bad.From, first)
		require.GreaterOrEqual(r, got.Bad.To, first)
		if how != "there twice" { // the first of the two is good
			require.Less(r, got.Last.Size, first, "what the last good head covers is good")
		}
	})
}

func TestAChangeAfterTheLastHead(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m, folder, _ := sealedLog(t, key, 10, 6)
	m.records = slices.Delete(m.records, 7, 8)
	got, err := check(t, m, folder, key.Verifiers())
	require.NoError(t, err)
	require.Equal(t, &seal.Bad{From: 8, To: 8, What: seal.Missing}, got.Bad, "numbers have no holes")
	require.Contains(t, got.Bad.String(), "record 8 is missing")
	require.Contains(t, got.Bad.String(), "after the last head")

	m, folder, _ = sealedLog(t, key, 10, 6)
	m.records[7].Actor = "nobody"
	got, err = check(t, m, folder, key.Verifiers())
	require.NoError(t, err)
	require.Nil(t, got.Bad, "nothing was signed yet that says otherwise")
	require.EqualValues(t, 6, got.Last.Size)
}

func TestTheCounterOfTheLogCounts(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m, folder, _ := sealedLog(t, key, 8, 6)
	heads, err := folder.Heads(orgA, key.Verifiers())
	require.NoError(t, err)
	defer heads.Close()
	got, err := seal.Check(t.Context(), m, heads, 10)
	require.NoError(t, err)
	require.Equal(t, &seal.Bad{From: 9, To: 9, What: seal.Missing}, got.Bad)
}

func TestARecordBelowTheFirst(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m, folder, _ := sealedLog(t, key, 5, 5)
	m.records = slices.Insert(m.records, 0, record(0))
	got, err := check(t, m, folder, key.Verifiers())
	require.NoError(t, err)
	require.Equal(t, &seal.Bad{From: 0, To: 0, What: seal.Inserted, Sealed: true}, got.Bad)
}

// TestHeadsThatCannotBeBelieved: whoever changes the file can't sign.
func TestHeadsThatCannotBeBelieved(t *testing.T) {
	t.Parallel()
	key, other := newKey(t), newKey(t)
	for name, tc := range map[string]struct {
		change func(text string, notes []string) string
		keys   seal.Verifiers
		kind   fault.Kind
		says   string
	}{
		"another key":       {func(text string, _ []string) string { return text }, other.Verifiers(), fault.Config, "head 1 of the file: none of the keys"},
		"a size changed":    {func(text string, _ []string) string { return strings.Replace(text, "\n7\n", "\n8\n", 1) }, nil, fault.Data, "head 2 of the file: its signature is wrong"},
		"heads exchanged":   {func(_ string, n []string) string { return n[1] + n[0] + n[2] }, nil, fault.Data, "head 2 of the file: it covers no more"},
		"a head repeated":   {func(_ string, n []string) string { return n[0] + n[0] }, nil, fault.Data, "head 2 of the file: it covers no more"},
		"another text":      {func(string, []string) string { return "hello\n\n— you x\n\n" }, nil, fault.Data, "it isn't a signed note"},
		"no text at all":    {func(string, []string) string { return strings.Repeat("x", 40<<10) }, nil, fault.Data, "too long"},
		"lines without end": {func(string, []string) string { return strings.Repeat("x\n", 40<<10) }, nil, fault.Data, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, folder, path := sealedLog(t, key, 10, 3, 7, 10)
			text := read(t, path)
			notes := strings.SplitAfter(text, "=\n\n")
			write(t, path, tc.change(text, notes))
			keys := tc.keys
			if keys == nil {
				keys = key.Verifiers()
			}
			_, err := check(t, m, folder, keys)
			require.ErrorContains(t, err, tc.says)
			require.Equal(t, tc.kind, fault.KindOf(err))
		})
	}
}

func TestAnotherOrgsHeads(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m, folder, path := sealedLog(t, key, 4, 4)
	require.NoError(t, os.Rename(path, strings.Replace(path, string(orgA), string(orgB), 1)))
	heads, err := folder.Heads(orgB, key.Verifiers())
	require.NoError(t, err)
	defer heads.Close()
	_, err = seal.Check(t.Context(), m, heads, 0)
	require.ErrorContains(t, err, "it is another org's")
	_, err = folder.Last(orgB, key.Verifiers())
	require.ErrorContains(t, err, "it is another org's")
}

func TestAHeadThatWasNotFinished(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m, folder, path := sealedLog(t, key, 10, 3, 7, 10)
	text := read(t, path)
	for _, cut := range []int{1, 2, 20, 100, 150} { // of the last head
		write(t, path, text[:len(text)-cut])
		got, err := check(t, m, folder, key.Verifiers())
		require.NoError(t, err)
		require.Nil(t, got.Bad)
		require.True(t, got.Unfinished)
		require.EqualValues(t, 7, got.Last.Size)

		last, err := folder.Last(orgA, key.Verifiers())
		require.NoError(t, err)
		require.EqualValues(t, 7, last.Size)
		require.NoError(t, folder.Append(orgA, last, m.head(t, key)))
		require.Equal(t, text, read(t, path), "the unfinished head makes way for the next one")
	}
}

func TestARecordsFormIsWhatIsHashed(t *testing.T) {
	t.Parallel()
	a, b := record(1), record(1)
	b.Kind, b.Actor = audit.Kind(string(a.Kind)+a.Actor), ""
	require.NotEqual(t, a.AppendCanonical(nil), b.AppendCanonical(nil), "a field can't run into the next")
}
