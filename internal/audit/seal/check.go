package seal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"golang.org/x/mod/sumdb/tlog"
)

// Log is what a log is checked from: the records as they are now, and the hashes that were stored when they were sealed.
type Log interface {
	// Leaves gives number and leaf hash of each record from one number to another, in the order of their numbers. Numbers that
	// are missing or there twice are given as they are.
	Leaves(ctx context.Context, from, to int64, fn func(seq int64, leaf tlog.Hash) error) error
	// Stored gives the leaf hash that was stored for each record from one number to another, in order; missing ones are left out.
	Stored(ctx context.Context, from, to int64, fn func(seq int64, leaf tlog.Hash) error) error
}

// Result is what a check has come to.
type Result struct {
	// Records is how many records were read, up to the first bad one.
	Records int64
	// Heads is how many heads of the file they agree with.
	Heads int
	// Last is the last of these: everything up to its size is proved. Its size is 0 where there is none.
	Last SignedHead
	// Bad is the first bad record; nil where there is none.
	Bad *Bad
	// Unfinished tells that the file ends in the middle of a head, which never counted.
	Unfinished bool
}

// Bad is the first bad record of a log.
type Bad struct {
	// From and To are the same where the record is known. Else the first bad one is among them: the stored hashes, which would tell
	// it, were changed as well.
	From, To int64
	// What is wrong with it.
	What What
	// Sealed is false for a record after the last head.
	Sealed bool
}

// What is wrong with a record.
type What string

// What can be wrong.
const (
	// Changed is a record that isn't what was sealed: edited, put in the place of another, or moved to it.
	Changed What = "changed"
	// Missing is a number without a record: it was deleted, or the log was cut off before it.
	Missing What = "missing"
	// Inserted is a record whose number is another's, or none.
	Inserted What = "inserted"
)

// String says it in words.
func (b *Bad) String() string {
	words := map[What]string{
		Changed: "isn't what was sealed: it was edited, or another was put in its place", Missing: "is missing: it was deleted, or the log was cut off before it",
		Inserted: "was inserted: its number is another record's, or no record's",
	}[b.What]
	text := fmt.Sprintf("record %d %s", b.From, words)
	if b.From != b.To {
		text = fmt.Sprintf("the first bad record is one of %d to %d: the records aren't what was sealed, and the stored hashes, which would tell which one, were changed too",
			b.From, b.To)
	}
	if !b.Sealed {
		text += " (it is after the last head)"
	}
	return text
}

// Check recomputes the tree of a log and compares it with every head. atLeast is how many records there must be, by the log's own
// counter. Its memory doesn't grow with the log. An error says that a head can't be believed, or that something couldn't be
// read.
func Check(ctx context.Context, log Log, heads *Heads, atLeast int64) (Result, error) {
	c := checker{heads: heads}
	if err := c.advance(); err != nil {
		return c.result, err
	}
	err := log.Leaves(ctx, math.MinInt64, math.MaxInt64, c.leaf)
	if err != nil && !errors.Is(err, errBad) {
		return c.result, err
	}
	if read := c.tree.Size(); err == nil && (read < c.next.Size || read < atLeast) {
		c.bad(read+1, Missing)
	}
	c.result.Unfinished = heads.Unfinished
	if bad := c.result.Bad; bad != nil && bad.Sealed {
		return c.result, c.locate(ctx, log)
	}
	return c.result, nil
}

// checker is a check on its way.
type checker struct {
	heads  *Heads
	result Result
	// tree is made of the records so far, good is what it was at the last head.
	tree, good Frontier
	// next is the head that is compared next; Size 0 after the last.
	next   SignedHead
	stored []tlog.Hash
}

// errBad ends the reading: a bad record was found.
var errBad = errors.New("a bad record was found")

func (c *checker) advance() error {
	head, err := c.heads.Next()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	c.next = head // none at the end of the file
	return nil
}

func (c *checker) bad(seq int64, what What) {
	c.result.Bad = &Bad{From: seq, To: seq, What: what, Sealed: seq <= max(c.next.Size, c.good.Size())}
}

// leaf takes the next record.
func (c *checker) leaf(seq int64, leaf tlog.Hash) error {
	switch want := c.tree.Size() + 1; {
	case seq < want:
		c.bad(seq, Inserted)
		return errBad
	case seq > want:
		c.bad(want, Missing)
		return errBad
	}
	c.stored = c.tree.Append(c.stored[:0], leaf)
	c.result.Records++
	if seq != c.next.Size {
		return nil
	}
	if c.tree.Root() != c.next.Root {
		c.bad(c.good.Size()+1, Changed)
		return errBad
	}
	c.result.Heads++
	c.result.Last, c.good = c.next, c.tree.Clone()
	return c.advance()
}

// locate finds the first bad record after the last good head: where the stored hashes up to the next one agree with it, the first
// record that doesn't agree with its own.
func (c *checker) locate(ctx context.Context, log Log) error {
	from, to := c.good.Size()+1, c.next.Size
	if c.result.Bad.From < from { // a number below those that were proved: another record there, or none could have it
		return nil
	}
	intact, err := c.intact(ctx, log, from, to)
	if err != nil {
		return err
	}
	if !intact {
		c.result.Bad.From, c.result.Bad.To = from, to
		return nil
	}
	found, err := compare(ctx, log, from, to)
	if found != nil {
		c.result.Bad = found
	}
	return err
}

// intact reports whether the stored hashes of these records are what the next head was signed for.
func (c *checker) intact(ctx context.Context, log Log, from, to int64) (bool, error) {
	tree := c.good.Clone()
	err := log.Stored(ctx, from, to, func(seq int64, leaf tlog.Hash) error {
		if seq != tree.Size()+1 {
			return errBad
		}
		c.stored = tree.Append(c.stored[:0], leaf)
		return nil
	})
	if errors.Is(err, errBad) {
		return false, nil
	}
	return tree.Size() == to && tree.Root() == c.next.Root, err
}

// compared is how many records are compared with their stored hashes at once.
const compared = 4096

// compare finds the first record whose leaf hash isn't the stored one.
func compare(ctx context.Context, log Log, from, to int64) (*Bad, error) {
	for ; from <= to; from += compared {
		stored := make(map[int64]tlog.Hash, compared)
		last := min(to, from+compared-1)
		err := log.Stored(ctx, from, last, func(seq int64, leaf tlog.Hash) error {
			stored[seq] = leaf
			return nil
		})
		if err != nil {
			return nil, err
		}
		want := from
		var found *Bad
		err = log.Leaves(ctx, from, last, func(seq int64, leaf tlog.Hash) error {
			switch {
			case seq < want:
				found = &Bad{From: seq, To: seq, What: Inserted, Sealed: true}
			case seq > want:
				found = &Bad{From: want, To: want, What: Missing, Sealed: true}
			case leaf != stored[seq]:
				found = &Bad{From: seq, To: seq, What: Changed, Sealed: true}
			}
			want++
			if found != nil {
				return errBad
			}
			return nil
		})
		if err != nil && !errors.Is(err, errBad) {
			return nil, err
		}
		if found == nil && want <= last {
			found = &Bad{From: want, To: want, What: Missing, Sealed: true}
		}
		if found != nil {
			return found, nil
		}
	}
	return nil, nil //nolint:nilnil // the records were put right between the two readings
}
