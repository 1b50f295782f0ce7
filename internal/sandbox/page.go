package sandbox

import (
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	// pageParam is the parameter of next links. Its value is random: nothing can be read or guessed from it.
	pageParam = "_page"
	// getPagesParam and getPagesOffsetParam are those of HAPI's.
	getPagesParam       = "_getpages"
	getPagesOffsetParam = "_getpagesoffset"
	// defaultPageLife is how long a next link works, in seconds.
	defaultPageLife = 600
	// maxPageLife, maxSearches, maxRows and maxPlain bound what is remembered: the links of the oldest searches expire first.
	maxPageLife = time.Hour
	maxSearches = 1024
	maxRows     = 4_000_000
	maxPlain    = 10_000
)

// results is what a search found, frozen at its first page: later changes neither shift nor repeat rows.
type results struct {
	typ     string
	hits    []hit
	count   int
	first   int // rows of the first page, when they are others than count; 0: count
	self    string
	idsOnly bool
	passed  url.Values // goes on with every next link
	shared  bool       // all links have the same token, and an offset beside it
	skip    bool       // the first row of the second page is left out

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
	size := r.count
	if offset == 0 && r.first > 0 {
		size = r.first
	}
	end := min(offset+size, len(r.hits))
	from := offset
	if f.DuplicateRows && offset > 0 {
		from-- // the last row of the page before
	}
	p := part{hits: r.hits[from:end], next: end, more: end < len(r.hits)}
	if r.skip && offset == 0 {
		p.next++
	}
	return p
}

// link is what stands behind a next link.
type link struct {
	results *results // nil for a link that is a search of its own
	offset  int
	made    time.Time
	uses    int
}

// expired counts one more use and tells whether that was too many, or too late (DOMAIN §2: next links expire).
func (l *link) expired(f Faults, now time.Time) bool {
	life := f.PageExpiresAfterSeconds
	if life == 0 {
		life = defaultPageLife
	}
	l.uses++
	return now.Sub(l.made) > time.Duration(life)*time.Second || f.PageExpiresAfterUses > 0 && l.uses > f.PageExpiresAfterUses
}

func expiredPage() *problem {
	return fail(http.StatusGone, codeExpired, "The page link has expired; repeat the search from its first page")
}

// pageTable holds the searches that have further pages. It is safe for concurrent use.
type pageTable struct {
	mu       sync.Mutex
	links    map[string]*link
	searches []*results // oldest first
	rows     int        // hits of all searches
	plain    map[string]*link
	skipped  map[string]bool // searches that a row was left out of
}

func newPageTable() *pageTable {
	return &pageTable{links: map[string]*link{}, plain: map[string]*link{}, skipped: map[string]bool{}}
}

// token gives the token of a search's page; the same page has the same token.
func (t *pageTable) token(r *results, offset int, now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if token, ok := r.tokens[offset]; ok {
		return token
	}
	token := randomText()
	if r.tokens == nil {
		r.tokens, r.made = map[int]string{}, now
		t.searches = append(t.searches, r)
		t.rows += len(r.hits)
		t.forgetOld(now)
	} else if r.shared {
		for _, token = range r.tokens {
			break
		}
	}
	r.tokens[offset] = token
	t.links[key(token, offset, r.shared)] = &link{results: r, offset: offset, made: now}
	return token
}

// key is under what a link is remembered.
func key(token string, offset int, shared bool) string {
	if shared {
		return token + "/" + strconv.Itoa(offset)
	}
	return token
}

// forgetOld lets go of searches that are too old or too many, the newest apart.
func (t *pageTable) forgetOld(now time.Time) {
	for len(t.searches) > 1 {
		r := t.searches[0]
		if now.Sub(r.made) < maxPageLife && len(t.searches) <= maxSearches && t.rows <= maxRows {
			return
		}
		for offset, token := range r.tokens {
			delete(t.links, key(token, offset, r.shared))
		}
		t.rows -= len(r.hits)
		t.searches = t.searches[1:]
	}
}

// askedPage reads the link that a request for a page names; "" when it names none.
func askedPage(params url.Values) string {
	if token := params.Get(getPagesParam); token != "" {
		return token + "/" + params.Get(getPagesOffsetParam)
	}
	return params.Get(pageParam)
}

// typeOf is the type that a link's search is for, "" when the link is unknown.
func (t *pageTable) typeOf(asked string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, ok := t.links[asked]; ok {
		return l.results.typ
	}
	return ""
}

// follow finds the page of a link. An expired one is 410 (DOMAIN §2: next links expire).
func (t *pageTable) follow(asked string, f Faults, now time.Time) (*results, int, *problem) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.links[asked]
	if !ok || l.expired(f, now) {
		return nil, 0, expiredPage()
	}
	return l.results, l.offset, nil
}

// give remembers a next link that is a search of its own, by its query string. Given again, it is a new one.
func (t *pageTable) give(query string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.plain) >= maxPlain {
		clear(t.plain) // an unknown link is a search like any other
	}
	t.plain[query] = &link{made: now}
}

// visit counts a use of a search that may have been a next link.
func (t *pageTable) visit(query string, f Faults, now time.Time) *problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, ok := t.plain[query]; ok && l.expired(f, now) {
		delete(t.plain, query) // the same search begins anew
		return expiredPage()
	}
	return nil
}

// skips tells whether a search is to leave out a row: only the first time that it is made, whatever its _count, so that
// who asks again has them all.
func (t *pageTable) skips(search string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.skipped[search] {
		return false
	}
	if len(t.skipped) >= maxPlain {
		clear(t.skipped)
	}
	t.skipped[search] = true
	return true
}
