package ehr

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// The clock skews that are spoken of: the watermark is by the server's clock, signatures and certificates by both.
const (
	skewWarning = 30 * time.Second
	skewFailed  = 5 * time.Minute
)

// authorize gets a token as a pull would.
func (t *tester) authorize(ctx context.Context) (grant, bool) {
	found, err := t.c.tokens.endpoint(ctx)
	if err != nil {
		t.failed(CheckSMART, "", err)
		return grant{}, false
	}
	how := "in the header (client_secret_basic)"
	if found.style == oauth2.AuthStyleInParams {
		how = "in the form (client_secret_post)"
	}
	source := "discovered"
	if t.c.cfg.TokenURL != "" {
		source = "given"
	}
	t.ok(CheckSMART, "", fmt.Sprintf("token endpoint %s: %s%s; the secret goes %s", source, originText(found.tokenURL), found.tokenURL.EscapedPath(), how))

	granted, _, err := t.c.tokens.get(ctx, "")
	if err != nil {
		t.failed(CheckToken, "", err)
		return grant{}, false
	}
	switch {
	case granted.assumed:
		t.ok(CheckToken, "", fmt.Sprintf("a bearer token without a lifetime: %d s are assumed", int(granted.lifetime.Seconds())))
	default:
		t.ok(CheckToken, "", fmt.Sprintf("a bearer token for %d s", int(granted.lifetime.Seconds())))
	}
	return granted, true
}

// scopes compares what was granted with what was asked for and with what the types need. The reads decide: servers are
// known to name scopes that they don't enforce, and the other way round.
func (t *tester) scopes(granted grant) {
	asked := t.c.cfg.Scopes
	sideBySide := "asked: " + scopeList(asked) + "; granted: " + scopeList(granted.scopes)
	given := parseScopes(granted.scopes)
	if len(given) == 0 {
		t.warn(CheckScopes, "", sideBySide+": no SMART scope among the granted", "Nothing to do if the reads below work; otherwise ask the hospital to grant system/*.rs for the types that are pulled")
		return
	}
	var lacking, narrowed []string
	for _, typ := range t.types {
		whole, some := covered(given, typ)
		switch {
		case !some:
			lacking = append(lacking, string(typ))
		case !whole:
			narrowed = append(narrowed, string(typ))
		}
	}
	switch {
	case len(lacking) > 0:
		t.warn(CheckScopes, "", sideBySide+"; not granted: "+strings.Join(lacking, ", "),
			fmt.Sprintf("Ask the hospital to grant system/TYPE.read (SMART v2: system/TYPE.rs) for %s, and give it with --scope", strings.Join(lacking, ", ")))
	case len(narrowed) > 0:
		t.warn(CheckScopes, "", sideBySide+"; granted in part only: "+strings.Join(narrowed, ", "),
			"Ask the hospital whether the part is what was agreed; the rest of these types won't be seen")
	default:
		t.ok(CheckScopes, "", sideBySide)
	}
	t.breadth(given)
}

// covered reports whether scopes let the client search and read typ, wholly or in some part.
func covered(scopes []Scope, typ cura.ResourceType) (whole, some bool) {
	can := func(action string, partly bool) bool {
		return slices.ContainsFunc(scopes, func(s Scope) bool { return s.Covers(typ, action) && (partly || s.Params == "") })
	}
	return can(ActionRead, false) && can(ActionSearch, false), can(ActionRead, true) && can(ActionSearch, true)
}

// breadth flags grants that would let a stolen secret do more than Cura ever does.
func (t *tester) breadth(given []Scope) {
	asked := parseScopes(t.c.cfg.Scopes)
	var all, unasked []string
	for _, s := range given {
		switch {
		case s.writesAll():
			all = append(all, s.String())
		case len(asked) > 0 && !slices.ContainsFunc(asked, func(a Scope) bool { return a.includes(s) }):
			unasked = append(unasked, s.String())
		}
	}
	switch {
	case len(all) > 0:
		t.warn(CheckBreadth, "", "over-broad: "+strings.Join(all, ", ")+" allows changes to every resource type",
			"Ask the hospital to grant only system/TYPE.rs for the types that are pulled")
	case len(unasked) > 0:
		t.warn(CheckBreadth, "", "granted beyond what was asked: "+strings.Join(unasked[:min(len(unasked), 10)], ", "),
			"Ask the hospital to take these scopes off the client")
	default:
		t.ok(CheckBreadth, "", "no over-broad grant")
	}
}

// scopeList prints scopes of SMART's form, and counts the others, which could be anything.
func scopeList(texts []string) string {
	const most = 20
	var shown []string
	others := 0
	for _, text := range texts {
		s, ok := ParseScope(text)
		switch {
		case !ok || len(shown) == most:
			others++
		case s.Params != "":
			shown = append(shown, s.String())
		default:
			shown = append(shown, text)
		}
	}
	if others > 0 {
		shown = append(shown, fmt.Sprintf("%d others", others))
	}
	if len(shown) == 0 {
		return "none"
	}
	return strings.Join(shown, " ")
}

func (t *tester) clock() {
	const fix = "Keep this host's clock by NTP; if it is right, tell the hospital that its server's isn't"
	if t.serverDate.IsZero() {
		t.warn(CheckClock, "", "the server sends no Date header", "Ask the hospital to let the Date header through: watermarks are taken from it")
		return
	}
	// Date is cut to the second, so its middle is the best guess.
	skew := t.serverDate.Add(500 * time.Millisecond).Sub(t.ours).Round(time.Second)
	seen := fmt.Sprintf("the server's clock is %d s ahead of ours", int(skew.Seconds()))
	if skew < 0 {
		seen = fmt.Sprintf("the server's clock is %d s behind ours", int(-skew.Seconds()))
	}
	switch {
	case skew.Abs() > skewFailed:
		t.fail(CheckClock, "", seen, fix)
	case skew.Abs() > skewWarning:
		t.warn(CheckClock, "", seen, fix)
	default:
		t.ok(CheckClock, "", seen)
	}
}
