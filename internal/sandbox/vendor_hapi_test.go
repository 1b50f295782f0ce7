package sandbox

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// DOMAIN §2: next links stand at the base's root without a type, and name a search that is kept for a while.
func TestHAPIPages(t *testing.T) {
	t.Parallel()
	s := hospitalOf(t, "hapi")
	c := clientOf(t, s)
	r := c.get("/Observation?_count=1")
	require.Equal(t, 4, *r.bundle(t).Total)
	var offsets, searches []string
	for next := r.link(t, "next"); next != ""; next = c.get(next).link(t, "next") {
		require.True(t, strings.HasPrefix(next, s.BaseURL()+"?"))
		u, err := url.Parse(next)
		require.NoError(t, err)
		offsets = append(offsets, u.Query().Get("_getpagesoffset"))
		searches = append(searches, u.Query().Get("_getpages"))
		require.Equal(t, "1", u.Query().Get("_count"))
	}
	require.Equal(t, []string{"1", "2", "3"}, offsets)
	require.Equal(t, searches[0], searches[2], "the search has one id")

	// Its results are frozen.
	require.NoError(t, s.Delete("Observation", "o1"))
	require.Equal(t, []string{"o2"}, c.get(r.link(t, "next")).ids(t))
	require.Equal(t, [][]string{{"o2", "o3"}, {"o4"}}, c.walk("/Observation?_count=2"))
	require.Equal(t, http.StatusGone, c.get("?_getpages=guessed&_getpagesoffset=2&_count=1").status)
}

// DOMAIN §2: HAPI answers 410 once the search was let go.
func TestHAPIPagesExpire(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := start(t, Config{Vendor: "hapi", Now: clock.now})
	c := clientOf(t, s)
	next := c.get("/Observation?_count=2").link(t, "next")
	knobs(t, s, Faults{PageExpiresAfterUses: 1})
	require.Equal(t, http.StatusOK, c.get(next).status)
	r := c.get(next)
	require.Equal(t, http.StatusGone, r.status)
	require.Equal(t, "expired", r.issue(t))
	knobs(t, s, Faults{PageExpiresAfterSeconds: 60})
	next = c.get("/Observation?_count=2").link(t, "next")
	clock.advance(61 * time.Second)
	require.Equal(t, http.StatusGone, c.get(next).status)
}
