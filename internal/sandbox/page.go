package sandbox

import (
	"net/http"
	"sync"
	"time"
)

const (
	// pageParam is the parameter of next links. Its value is random: nothing can be read or guessed from it.
	pageParam = "_page"
	// defaultPageLife is how long a next link works, in seconds.
	defaultPageLife = 600
	// maxPageLife, maxSearches and maxRows bound what is remembered: the links of the oldest searches expire first.
	maxPageLife = time.Hour
	maxSearches = 1024
	maxRows     = 500_000
)

// results is what a search found, frozen at its first page: later changes neither shift nor repeat rows.
type results struct {
	typ   string
	hits  []hit
	count int
	self  string

	// Set once the search has a next link, and guarded by the pageTable.
	made   time.Time
	tokens map[int]string // by offset
}

// part is one page of results.
type part struct {
	hits []hit
	next int // offset of the page behind it
	more bool
}

// part cuts the page at an offset out of the results.
func (r *results) part(offset int, f Faults) part {
	offset = min(offset, len(r.hits))
	end := min(offset+r.count, len(r.hits))
	from := offset
	if f.DuplicateRows && offset > 0 {
		from-- // the last row of the page before
	}
	return part{hits: r.hits[from:end], next: end, more: end < len(r.hits)}
}

// link is what stands behind the token of a next link.
type link struct {
	results *results
	offset  int
	made    time.Time
	uses    int
}

// pageTable holds the searches that have further pages. It is safe for concurrent use.
type pageTable struct {
	mu       sync.Mutex
	links    map[string]*link
	searches []*results // oldest first
	rows     int        // hits of all searches
}

func newPageTable() *pageTable { return &pageTable{links: map[string]*link{}} }

// token gives the token of a search's page; the same page has the same token.
func (t *pageTable) token(r *results, offset int, now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if token, ok := r.tokens[offset]; ok {
		return token
	}
	if r.tokens == nil {
		r.tokens, r.made = map[int]string{}, now
		t.searches = append(t.searches, r)
		t.rows += len(r.hits)
		t.forgetOld(now)
	}
	token := randomText()
	r.tokens[offset] = token
	t.links[token] = &link{results: r, offset: offset, made: now}
	return token
}

// forgetOld lets go of searches that are too old or too many, the newest apart.
func (t *pageTable) forgetOld(now time.Time) {
	for len(t.searches) > 1 {
		r := t.searches[0]
		if now.Sub(r.made) < maxPageLife && len(t.searches) <= maxSearches && t.rows <= maxRows {
			return
		}
		for _, token := range r.tokens {
			delete(t.links, token)
		}
		t.rows -= len(r.hits)
		t.searches = t.searches[1:]
	}
}

// typeOf is the type that a token's search is for, "" when the token is unknown.
func (t *pageTable) typeOf(token string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, ok := t.links[token]; ok {
		return l.results.typ
	}
	return ""
}

// follow finds the page of a token. An expired link is 410 (DOMAIN §2: next links expire).
func (t *pageTable) follow(token string, f Faults, now time.Time) (*results, int, *problem) {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone := fail(http.StatusGone, codeExpired, "The page link has expired; repeat the search from its first page")
	l, ok := t.links[token]
	if !ok {
		return nil, 0, gone
	}
	life := f.PageExpiresAfterSeconds
	if life == 0 {
		life = defaultPageLife
	}
	l.uses++
	if now.Sub(l.made) > time.Duration(life)*time.Second || f.PageExpiresAfterUses > 0 && l.uses > f.PageExpiresAfterUses {
		return nil, 0, gone
	}
	return l.results, l.offset, nil
}
