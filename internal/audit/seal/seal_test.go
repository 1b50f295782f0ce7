package seal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cura-health/ehr-sync/internal/audit"
	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/cura"
)

const (
	orgA = cura.OrgID("0b7c6a52-8c5e-4a55-9d0e-3f6b1f2f3a10")
	orgB = cura.OrgID("1c8d7b63-9d6f-4b66-8e1f-4a7c2a3a4b21")
)

// newKey makes a signing key in a file of its own.
func newKey(tb testing.TB) *seal.Key {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "key")
	verifier, err := seal.GenerateKeyFile(file)
	require.NoError(tb, err)
	key, err := seal.OpenKeyFile(file)
	require.NoError(tb, err)
	require.Equal(tb, verifier, key.Verifier())
	return key
}

// memory is a log in memory, with the hashes that were stored when it was sealed.
type memory struct {
	records []audit.Entry
	stored  []tlog.Hash // by tlog.StoredHashIndex
	leaves  map[int64]tlog.Hash
	tree    seal.Frontier
}

func newLog(n int) *memory {
	m := &memory{leaves: map[int64]tlog.Hash{}}
	for i := range n {
		m.append(record(int64(i + 1)))
	}
	return m
}

func record(seq int64) audit.Entry {
	return audit.Entry{Org: orgA, Seq: seq, At: 1e15 + seq, Kind: audit.PageRead, Actor: audit.Worker, Outcome: audit.Success, Details: fmt.Sprintf(`{"served":%d}`, seq)}
}

func (m *memory) append(e audit.Entry) {
	leaf := tlog.RecordHash(e.AppendCanonical(nil))
	m.records, m.leaves[e.Seq] = append(m.records, e), leaf
	m.stored = m.tree.Append(m.stored, leaf)
}

func (m *memory) Leaves(_ context.Context, from, to int64, fn func(int64, tlog.Hash) error) error {
	for _, e := range m.records {
		if e.Seq >= from && e.Seq <= to {
			if err := fn(e.Seq, tlog.RecordHash(e.AppendCanonical(nil))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) Stored(_ context.Context, from, to int64, fn func(int64, tlog.Hash) error) error {
	for seq := from; seq <= to; seq++ {
		if leaf, ok := m.leaves[seq]; ok {
			if err := fn(seq, leaf); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		hashes[i] = m.stored[index]
	}
	return hashes, nil
}

// head signs what the log holds.
func (m *memory) head(tb require.TestingT, key *seal.Key) seal.SignedHead {
	h, err := key.Sign(seal.Head{Org: orgA, Size: m.tree.Size(), Root: m.tree.Root(), At: time.Unix(1_700_000_000, 0)})
	require.NoError(tb, err)
	return h
}

// sealedLog is a log of n records, with a head after each of these sizes in a folder.
func sealedLog(tb testing.TB, key *seal.Key, n int, sizes ...int) (*memory, *seal.Folder, string) {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "heads")
	folder, err := seal.MakeFolder(dir)
	require.NoError(tb, err)
	m := newLog(0)
	var heads []seal.SignedHead
	for i := range n {
		m.append(record(int64(i + 1)))
		if slices.Contains(sizes, i+1) {
			heads = append(heads, m.head(tb, key))
		}
	}
	require.NoError(tb, folder.Append(orgA, seal.SignedHead{}, heads...))
	return m, folder, filepath.Join(dir, string(orgA)+".heads")
}

// check checks a log with the heads in a folder.
func check(tb testing.TB, m *memory, folder *seal.Folder, keys seal.Verifiers) (seal.Result, error) {
	tb.Helper()
	heads, err := folder.Heads(orgA, keys)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, heads.Close()) }()
	return seal.Check(tb.Context(), m, heads, 0)
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	require.NoError(tb, os.WriteFile(path, []byte(text), 0o600))
}

func read(tb testing.TB, path string) string {
	tb.Helper()
	text, err := os.ReadFile(path)
	require.NoError(tb, err)
	return string(text)
}
