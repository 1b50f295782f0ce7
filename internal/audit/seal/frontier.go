// Package seal makes the audit log prove itself. The records of an org are the leaves of a Merkle tree (RFC 6962, by
// golang.org/x/mod/sumdb/tlog); a head says how many there are and what they hash to; it is signed (sumdb/note, Ed25519) and kept in
// a file outside of the database. Whoever changes a record that a head covers would have to find another with the same hash.
package seal

import (
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Frontier is the right edge of a tree: all that it takes to grow it and to tell its root. The zero value is the empty tree.
type Frontier struct {
	size int64
	// peaks are the roots of the perfect trees that the leaves make up, the largest and leftmost first.
	peaks []tlog.Hash
}

// NewFrontier is the frontier of a tree of that size, from the hashes at PeakIndexes.
func NewFrontier(size int64, peaks []tlog.Hash) (Frontier, error) {
	if size < 0 || len(peaks) != bits.OnesCount64(uint64(size)) {
		return Frontier{}, fmt.Errorf("a tree of %d records isn't made of %d perfect trees", size, len(peaks))
	}
	return Frontier{size: size, peaks: slices.Clone(peaks)}, nil
}

// PeakIndexes are the indexes (tlog.StoredHashIndex) of the stored hashes that are the frontier of a tree of that size.
func PeakIndexes(size int64) []int64 {
	var indexes []int64
	for left, level := int64(0), 62; level >= 0; level-- {
		if size&(1<<level) != 0 {
			indexes = append(indexes, tlog.StoredHashIndex(level, left>>level))
			left += 1 << level
		}
	}
	return indexes
}

// Size is how many leaves the tree has.
func (f *Frontier) Size() int64 { return f.size }

// Clone is a frontier that grows on its own.
func (f *Frontier) Clone() Frontier { return Frontier{f.size, slices.Clone(f.peaks)} }

// Append adds a leaf to the tree, and to stored the hashes that are stored with it: the leaf's, at
// tlog.StoredHashIndex(0, size), and after it those of the trees that it completes.
func (f *Frontier) Append(stored []tlog.Hash, leaf tlog.Hash) []tlog.Hash {
	stored = append(stored, leaf)
	for n := f.size; n&1 == 1; n >>= 1 {
		last := len(f.peaks) - 1
		leaf = tlog.NodeHash(f.peaks[last], leaf)
		f.peaks = f.peaks[:last]
		stored = append(stored, leaf)
	}
	f.peaks = append(f.peaks, leaf)
	f.size++
	return stored
}

// Root is the hash of the whole tree; the zero hash for the empty one, which no head is made of.
func (f *Frontier) Root() tlog.Hash {
	if f.size == 0 {
		return tlog.Hash{}
	}
	root := f.peaks[len(f.peaks)-1]
	for _, peak := range slices.Backward(f.peaks[:len(f.peaks)-1]) {
		root = tlog.NodeHash(peak, root)
	}
	return root
}
