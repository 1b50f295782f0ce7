package ehr

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/url"
	"strconv"
	"strings"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// cursor is a place in a chain of pages: the link to the next page, and what it takes to notice a chain that never ends,
// also after a restart. Its text is what Page.Next and Query.Next hold.
//
// Loops are found as in Brent's algorithm: one link is remembered, and replaced after 1, 2, 4, 8 … pages, so a loop of n
// pages is found within three times around, with one hash to keep instead of one a page.
type cursor struct {
	pages int
	mark  string
	link  *url.URL
}

// follow moves the cursor to the link that a page gave.
func (c cursor) follow(op string, link *url.URL, maxPages int) (cursor, error) {
	sum := sha256.Sum256([]byte(link.String()))
	key := hex.EncodeToString(sum[:16])
	next := cursor{pages: c.pages + 1, mark: c.mark, link: link}
	const fix = "Ask the hospital about its server's paging; the watermark stays where it is"
	if key == c.mark {
		return cursor{}, fault.Newf(op, fault.Protocol, "the next links run in a loop, noticed after %d pages", next.pages).WithFix(fix)
	}
	if next.pages >= maxPages {
		return cursor{}, fault.Newf(op, fault.Protocol, "the next links haven't ended after %d pages", next.pages).WithFix(fix)
	}
	if bits.OnesCount(uint(next.pages)) == 1 {
		next.mark = key
	}
	return next, nil
}

// String is the form that parseCursor reads.
func (c cursor) String() string { return fmt.Sprintf("%d %s %s", c.pages, c.mark, c.link) }

// parseCursor reads what String wrote. The link in it was data of the server's once, and is checked again: the connection
// may have been moved to another base since, which is no fault of a server's.
func (c *Client) parseCursor(op, text string) (cursor, error) {
	parts := strings.SplitN(text, " ", 3)
	if len(parts) == 3 {
		pages, err := strconv.Atoi(parts[0])
		link, linkErr := url.Parse(parts[2])
		if err == nil && linkErr == nil && pages > 0 {
			if !below(c.base, link) {
				return cursor{}, fault.New(op, fault.Expired, "the stored cursor is of another FHIR base; nothing was sent there").WithFix(fixAgain)
			}
			return cursor{pages: pages, mark: parts[1], link: link}, nil
		}
	}
	return cursor{}, fault.New(op, fault.Expired, "the stored cursor can't be read").WithFix(fixAgain)
}

// checkLink lets a link through only if it lies below the FHIR base: the token would go with it.
func (c *Client) checkLink(op string, link *url.URL) error {
	if below(c.base, link) {
		return nil
	}
	where := "to a path outside the FHIR base"
	if originOf(link) != originOf(c.base) {
		where = "to another scheme, host or port"
	}
	return fault.New(op, fault.Protocol, "the next link leaves the connection's origin, "+where+"; nothing was sent there").
		WithFix("Ask the hospital to have its server write next links under the FHIR base URL that the connection uses")
}
