package seal_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
)

// TestAFrontierGrowsTheTreeOfPackageTlog compares, at every size, root, stored hashes and frontier with package tlog's.
func TestAFrontierGrowsTheTreeOfPackageTlog(t *testing.T) {
	t.Parallel()
	m := newLog(0)
	var stored []tlog.Hash
	for n := range int64(300) {
		require.Equal(t, tlog.StoredHashIndex(0, n), int64(len(m.stored)))
		m.append(record(n + 1))
		hashes, err := tlog.StoredHashes(n, record(n+1).AppendCanonical(nil), m)
		require.NoError(t, err)
		stored = append(stored, hashes...)
		require.Equal(t, stored, m.stored)
		root, err := tlog.TreeHash(n+1, m)
		require.NoError(t, err)
		require.Equal(t, root, m.tree.Root())

		peaks, err := m.ReadHashes(seal.PeakIndexes(n + 1))
		require.NoError(t, err)
		again, err := seal.NewFrontier(n+1, peaks)
		require.NoError(t, err)
		require.Equal(t, m.tree, again, "the frontier is read back")
	}
	_, err := seal.NewFrontier(3, make([]tlog.Hash, 1))
	require.ErrorContains(t, err, "3 records isn't made of 1")
}
