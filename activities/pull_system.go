package activities

import (
	"context"
	"errors"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/failpoint"
	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/store"
)

// maxRestarts is how often a window may begin again because the server forgot its page links, or skipped rows.
const maxRestarts = 3

// inFlight bounds the bytes of the pages that are between the EHR and the tables; one page may be larger.
const inFlight = 32 << 20

// readSystem searches the whole system: page by page, and where that can't be done in one go, window by window of
// _lastUpdated.
func (p *puller) readSystem(ctx context.Context) (end, error) {
	searches := p.rules.Slices(p.choice.NotOffered)
	for {
		cursor, err := p.cursor(ctx)
		if err != nil || cursor.Done {
			return end{done: cursor.Done}, err
		}
		e, err := p.stream(ctx, searches, cursor)
		if err == nil {
			return e, nil
		}
		// The pages before the fault are committed; the cursor says where it happened.
		wait, err := p.afterFault(ctx, searches, err)
		if err != nil || wait > 0 {
			return end{wait: wait}, err
		}
		if stop, e, err := p.interrupted(ctx); stop || err != nil {
			return e, err
		}
	}
}

// cursor says where the pass stands; one that hasn't begun begins at the watermark, less the overlap, or at the range that
// was asked for.
func (p *puller) cursor(ctx context.Context) (store.Cursor, error) {
	var cursor store.Cursor
	var watermark *time.Time
	err := p.inOrg(ctx, func(tx *store.Tx) error {
		var err error
		if cursor, err = tx.Cursor(ctx, p.pass); err != nil {
			return err
		}
		watermark, err = tx.Watermark(ctx, p.pass)
		return err
	})
	if err != nil || cursor.Begun || cursor.Done {
		return cursor, err
	}
	cursor.Since, cursor.Until = p.in.Since, p.in.Until
	if !p.in.part() && !p.in.Full && watermark != nil {
		since := watermark.Add(-p.a.cfg.Overlap)
		cursor.Since = &since
	}
	return cursor, nil
}

// onItsWay is a page between the EHR and the tables.
type onItsWay struct {
	page    ehr.Page
	items   []store.Item
	ready   chan error // gives the outcome of prepare, once
	bytes   int64
	advance store.Advance
}

// stream takes pages from the EHR to the tables, from cursor on, in the order that is the promise: fetch, prepare, then
// rows, counts, audit and cursor in one transaction. The next page is fetched and prepared while one is written. It ends
// with the pass, or with what stopped it; a fault of the EHR comes out after the pages before it are committed.
func (p *puller) stream(ctx context.Context, searches []url.Values, cursor store.Cursor) (end, error) {
	var e end
	var stopped error // of the EHR
	pages := make(chan *onItsWay, 1)
	room := semaphore.NewWeighted(inFlight)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(pages)
		for fetched := 0; ; {
			stop, why, err := p.interrupted(ctx)
			if err != nil {
				return err
			}
			if stop || fetched >= p.a.cfg.ChunkResources {
				e = why
				return nil
			}
			page, wait, err := p.fetch(ctx, p.query(searches[cursor.Slice], cursor))
			if err != nil || wait > 0 {
				e.wait, stopped = wait, err
				return ctx.Err()
			}
			failpoint.Reach(failpoint.PageFetched)
			fetched += len(page.Entries)
			next, candidate, err := p.following(ctx, searches, cursor, page)
			if err != nil {
				stopped = err
				return ctx.Err()
			}
			o := &onItsWay{page: page, ready: make(chan error, 1), bytes: min(sizeOf(page), inFlight)}
			o.advance = store.Advance{Cursor: next, Candidate: candidate, Part: p.in.part()}
			if err := room.Acquire(ctx, o.bytes); err != nil {
				return err
			}
			group.Go(func() error {
				var err error
				o.items, err = p.sink.prepare(ctx, o.page)
				o.ready <- err
				return err
			})
			select {
			case pages <- o:
			case <-ctx.Done():
				return ctx.Err()
			}
			if next == nil {
				e.done = true
				return nil
			}
			cursor = *next
		}
	})
	group.Go(func() error {
		for o := range pages {
			if err := <-o.ready; err != nil {
				return err
			}
			if err := p.sink.take(ctx, p.pass, o.page, o.items, o.advance); err != nil {
				return err
			}
			o.page, o.items = ehr.Page{}, nil
			room.Release(o.bytes)
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return end{}, err
	}
	return e, stopped
}

func sizeOf(page ehr.Page) int64 {
	var n int64
	for _, entry := range page.Entries {
		n += int64(len(entry.Resource))
	}
	return n
}

// following is where the pass goes after a page: along the link, from the start of the window again because rows were
// skipped, to the next window, to the next slice, or nowhere: it is over.
func (p *puller) following(ctx context.Context, searches []url.Values, c store.Cursor, page ehr.Page) (*store.Cursor, time.Time, error) {
	if c.Candidate == nil {
		c.Candidate = &page.ServerTime
	}
	if c.Next == "" && page.Total != nil {
		c.Total = *page.Total
	}
	c.Rows += len(page.Entries)
	candidate := *c.Candidate
	if c.Next = page.Next; c.Next != "" {
		return &c, candidate, nil
	}
	short, err := p.short(ctx, searches[c.Slice], c)
	switch {
	case err != nil:
		return nil, candidate, err
	case short:
		c.Restarts++
		c.Rows, c.Total = 0, 0
		return &c, candidate, nil
	}
	c.Rows, c.Total, c.Restarts = 0, 0, 0
	limit := p.in.Until
	switch {
	case c.Until != nil && (limit == nil || c.Until.Before(*limit)):
		// The windows before were too large, so the next one isn't the whole rest at once.
		since, until := *c.Until, c.Until.Add(2*c.Until.Sub(lowerBound(c)))
		c.Since, c.Until = &since, &until
		if limit != nil && until.After(*limit) {
			c.Until = limit
		} else if limit == nil && until.After(candidate) {
			c.Until = nil
		}
		return &c, candidate, nil
	case c.Slice+1 < len(searches):
		c.Slice++
		c.Since, c.Until = p.in.Since, limit
		if limit == nil && p.in.Since == nil {
			return p.sliceStart(ctx, c, candidate)
		}
		return &c, candidate, nil
	}
	return nil, candidate, nil
}

// sliceStart puts the cursor to the start of its slice.
func (p *puller) sliceStart(ctx context.Context, c store.Cursor, candidate time.Time) (*store.Cursor, time.Time, error) {
	fresh := store.Cursor{Slice: c.Slice, Candidate: c.Candidate, PageSize: c.PageSize}
	err := p.inOrg(ctx, func(tx *store.Tx) error {
		watermark, err := tx.Watermark(ctx, p.pass)
		if watermark != nil && !p.in.Full {
			since := watermark.Add(-p.a.cfg.Overlap)
			fresh.Since = &since
		}
		return err
	})
	return &fresh, candidate, err
}

// short reports whether a window that has ended brought fewer rows than there are: a server whose pages shift while they
// are read skips some. Totals may be estimates, so the server is asked to count before the window is read again.
func (p *puller) short(ctx context.Context, search url.Values, c store.Cursor) (bool, error) {
	if c.Total <= c.Rows || c.Restarts >= maxRestarts {
		return false, nil
	}
	var n int
	var counts bool
	query := p.query(search, store.Cursor{Since: c.Since, Until: c.Until})
	_, err := p.a.attempt(ctx, p.a.cfg.RetryAttempts, func() error {
		var err error
		n, counts, err = p.client.Count(ctx, query)
		return err
	})
	if err != nil {
		return false, err
	}
	if !counts {
		return c.Restarts == 0, nil
	}
	return n > c.Rows, nil
}

// beginning is older than any EHR's resources.
func beginning() time.Time { return time.Date(1990, time.January, 1, 0, 0, 0, 0, time.UTC) }

func lowerBound(c store.Cursor) time.Time {
	if c.Since != nil {
		return *c.Since
	}
	return beginning()
}

// afterFault finds the way past what stopped a stream, and moves the cursor there: begin the window again, with smaller
// pages or in smaller windows, or go round a resource that the server can't give. Where there is none it gives cause back; with wait
// the EHR wants a pause first.
func (p *puller) afterFault(ctx context.Context, searches []url.Values, cause error) (wait time.Duration, err error) {
	c, err := p.cursor(ctx)
	if err != nil {
		return 0, err
	}
	switch {
	case fault.Is(cause, fault.Expired) && c.Restarts < maxRestarts:
		c.Restarts++
		c.Next, c.Rows, c.Total = "", 0, 0
	case fault.Is(cause, fault.Expired):
		// The server forgets its links sooner than so long a chain of pages can be followed.
		if c, err = p.narrow(ctx, searches[c.Slice], c, max(c.Rows/4, p.pageSize(c)), cause); err != nil {
			return 0, err
		}
		c.Restarts = 0
		failpoint.Reach(failpoint.WindowNarrowed)
	case errors.Is(cause, ehr.ErrPageTooLarge) && c.PageSize != 1:
		c.PageSize = max(p.pageSize(c)/2, 1)
		c.Next, c.Rows, c.Total = "", 0, 0
	case fault.Is(cause, fault.Depth):
		if c, err = p.narrow(ctx, searches[c.Slice], c, max(c.Rows, p.pageSize(c)), cause); err != nil {
			return 0, err
		}
		failpoint.Reach(failpoint.WindowNarrowed)
	case fault.Is(cause, fault.Transient):
		return p.aroundPoison(ctx, searches, c, cause)
	default:
		return 0, cause
	}
	return 0, p.inOrg(ctx, func(tx *store.Tx) error { return tx.MoveCursor(ctx, p.pass, c) })
}

// narrow makes the window end earlier, so that it holds at most fits rows, as far as the server counts. It begins again.
func (p *puller) narrow(ctx context.Context, search url.Values, c store.Cursor, fits int, cause error) (store.Cursor, error) {
	c.Next, c.Rows, c.Total = "", 0, 0
	low, high := lowerBound(c), time.Now().Add(24*time.Hour)
	if c.Candidate != nil {
		high = c.Candidate.Add(time.Minute)
	}
	if c.Until != nil {
		high = *c.Until
	}
	for high.Sub(low) > time.Millisecond {
		middle := low.Add(high.Sub(low) / 2).Truncate(time.Millisecond)
		if !middle.After(low) {
			break
		}
		c.Until = &middle
		n, counts, err := p.client.Count(ctx, p.query(search, store.Cursor{Since: c.Since, Until: c.Until}))
		switch {
		case err != nil || !counts:
			return c, nil //nolint:nilerr // reading the window tells
		case n > fits:
			high = middle
		case n == 0:
			c.Since, low = &middle, middle
		default:
			return c, nil
		}
	}
	if f, ok := errors.AsType[*fault.Error](cause); ok {
		return c, f.GivenUp(max(f.Attempts, 1)).WithFix("Too many resources share one instant of _lastUpdated to be read by windows; choose another strategy: starter connection edit --strategy " +
			string(p.in.Type) + "=roster")
	}
	return c, cause
}
