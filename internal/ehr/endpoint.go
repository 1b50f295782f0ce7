package ehr

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/profile"
)

// The names of the checks, in the order in which they are made.
const (
	CheckURL          = "url"
	CheckProfile      = "profile"
	CheckDNS          = "dns"
	CheckTCP          = "tcp"
	CheckTLS          = "tls"
	CheckMetadata     = "metadata"
	CheckTypes        = "types"
	CheckSMART        = "smart"
	CheckToken        = "token"
	CheckScopes       = "scopes"
	CheckBreadth      = "scope-breadth"
	CheckClock        = "clock"
	CheckRead         = "read"
	CheckSearchParams = "search-params"
	CheckDelivery     = "delivery"
)

// expiryWarning is how long before its end a certificate is warned about.
const expiryWarning = 30 * 24 * time.Hour

// TestOptions say what an endpoint test looks for.
type TestOptions struct {
	// Types are those that the connection will pull; empty for all of cura.ResourceTypes.
	Types []cura.ResourceType
	// Profile says how each type is read; nil: the client's own.
	Profile *profile.Profile
	// Patient is the EHR's id of a patient on the roster to try searches by patient with: PHI. Empty: those aren't tried.
	Patient string
	// Overrides are the strategies that an operator has chosen, by type.
	Overrides map[cura.ResourceType]cura.Strategy
	// Deliveries are the kinds that the connection wants to deliver by FHIR; empty: none is looked at.
	Deliveries []cura.ArtefactKind
}

// Test is [Client.Test] for settings that may not even make a client: those too become checks, with the fix beside them.
func Test(ctx context.Context, cfg Config, opts TestOptions) cura.EndpointReport {
	if cfg.Profile == nil {
		cfg.Profile = opts.Profile
	}
	c, err := New(cfg)
	if err == nil {
		defer c.Close()
		return c.Test(ctx, opts)
	}
	name := CheckURL
	if _, caErr := cfg.parseCA(); caErr != nil {
		if _, urlErr := cfg.parseBase(); urlErr == nil {
			name = CheckTLS
		}
	} else if cfg.ClientID == "" || cfg.Secret == "" {
		name = CheckToken
	} else if _, err := cfg.profile(); err != nil {
		name = CheckProfile
	}
	var t tester
	t.failed(name, "", err)
	return t.report
}

// Test looks at the endpoint as a pull would use it: the address, its certificate, what the server says it can do, a
// token and its scopes, the clocks, and real searches of each type, as the profile would read it or an operator wants it
// read; the report says by which strategy that will be. It goes on for as long as it makes sense: a check that failed and
// that later ones depend on is the last of the report. A type that answers 403 is listed as forbidden, one that the server
// doesn't offer as missing; both are warnings, and the rest goes on. Only for Patient are they failures, since every other
// type hangs on a patient. What is read by patient isn't tried without one: that is a warning. So is a kind that can't be
// delivered; nothing is written to find out.
func (c *Client) Test(ctx context.Context, opts TestOptions) cura.EndpointReport {
	if len(opts.Types) == 0 {
		opts.Types = cura.ResourceTypes()
	}
	if opts.Profile == nil {
		opts.Profile = c.cfg.Profile
	}
	t := tester{c: c, types: opts.Types, profile: opts.Profile, patient: opts.Patient, overrides: opts.Overrides, kinds: opts.Deliveries}
	t.ok(CheckURL, "", "FHIR base "+c.base.String())
	if !t.dns(ctx) || !t.connection(ctx) || !t.metadata(ctx) {
		return t.report
	}
	t.offeredTypes()
	if granted, ok := t.authorize(ctx); ok {
		t.scopes(granted)
		t.clock()
		t.reads(ctx)
		t.deliveries(granted)
	} else {
		t.clock() // a clock that is off is a common reason for a refused token
	}
	return t.report
}

// tester collects the checks of one run.
type tester struct {
	c         *Client
	types     []cura.ResourceType
	profile   *profile.Profile
	patient   string
	overrides map[cura.ResourceType]cura.Strategy
	// kinds are those to deliver by FHIR.
	kinds  []cura.ArtefactKind
	report cura.EndpointReport

	capabilities capabilities
	// serverDate and ours were read at the same moment, as near as one answer tells; serverDate is zero where the server
	// sends no Date.
	serverDate, ours time.Time
}

func (t *tester) add(name string, typ cura.ResourceType, verdict cura.Verdict, seen, fix string) {
	t.report.Checks = append(t.report.Checks, cura.Check{Name: name, Type: typ, Verdict: verdict, Seen: seen, Fix: fix})
}

func (t *tester) ok(name string, typ cura.ResourceType, seen string) {
	t.add(name, typ, cura.VerdictOK, seen, "")
}

func (t *tester) warn(name string, typ cura.ResourceType, seen, fix string) {
	t.add(name, typ, cura.VerdictWarning, seen, fix)
}

func (t *tester) fail(name string, typ cura.ResourceType, seen, fix string) {
	t.add(name, typ, cura.VerdictFailed, seen, fix)
}

// failed reports a fault.
func (t *tester) failed(name string, typ cura.ResourceType, err error) {
	f := asFault(err)
	fix := f.Fix
	if fix == "" {
		fix = "Try again with starter test; if it stays, ask the hospital about its server"
	}
	t.fail(name, typ, f.Op+": "+f.Detail, fix)
}

func (t *tester) dns(ctx context.Context) bool {
	host := t.c.base.Hostname()
	if _, err := netip.ParseAddr(host); err == nil {
		t.ok(CheckDNS, "", "an address, nothing to look up")
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, t.c.cfg.Timeouts.Dial)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		fix := "Check the spelling of the host name, and whether this host uses the hospital's DNS or VPN"
		t.fail(CheckDNS, "", host+" isn't known to DNS, or DNS doesn't answer", fix)
		return false
	}
	slices.Sort(found)
	t.ok(CheckDNS, "", fmt.Sprintf("%s is %s", host, strings.Join(found[:min(len(found), 4)], ", ")))
	return true
}

// connection opens one connection, and secures it: one that is opened and dropped would look like an attack in the
// hospital's logs.
func (t *tester) connection(ctx context.Context) bool {
	address := originOf(t.c.base).address()
	conn, err := t.c.dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		t.failed(CheckTCP, "", transportFault(ctx, "connecting", err))
		return false
	}
	defer func() { _ = conn.Close() }() // nothing was asked
	t.ok(CheckTCP, "", "connected to "+address)
	return t.tls(ctx, conn)
}

func (t *tester) tls(ctx context.Context, conn net.Conn) bool {
	if t.c.base.Scheme != "https" {
		t.warn(CheckTLS, "", "plain http to a loopback address", "Use https for anything but a rehearsal")
		return true
	}
	limited, cancel := context.WithTimeout(ctx, t.c.cfg.Timeouts.TLS)
	defer cancel()
	config := t.c.tls.Clone()
	config.ServerName = t.c.base.Hostname()
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(limited); err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			t.fail(CheckTLS, "", "the host didn't finish the TLS handshake in time", fixNetwork)
		} else {
			t.failed(CheckTLS, "", transportFault(ctx, "verifying the certificate", err))
		}
		return false
	}
	if len(secure.ConnectionState().VerifiedChains) == 0 {
		t.fail(CheckTLS, "", "the connection has no verified certificate", fixCA)
		return false
	}
	t.certificates(secure.ConnectionState())
	return true
}

func (t *tester) certificates(state tls.ConnectionState) {
	chain := state.VerifiedChains[0]
	names := make([]string, len(chain))
	first := chain[0]
	for i, cert := range chain {
		names[i] = subject(cert)
		if cert.NotAfter.Before(first.NotAfter) {
			first = cert
		}
	}
	roots := "the system's roots"
	if t.c.cfg.CAPEM != "" {
		roots = "the CA given"
	}
	seen := fmt.Sprintf("%s, verified by %s; chain: %s; valid until %s",
		tls.VersionName(state.Version), roots, strings.Join(names, " <- "), day(first.NotAfter))
	left := first.NotAfter.Sub(t.c.cfg.Clock())
	if left < expiryWarning {
		t.warn(CheckTLS, "", fmt.Sprintf("%s, in %d days", seen, max(0, int(left/(24*time.Hour)))),
			"Ask the hospital to renew its certificate before then")
		return
	}
	t.ok(CheckTLS, "", seen)
}

// subject is what a certificate calls itself, made fit to print.
func subject(cert *x509.Certificate) string {
	name := cert.Subject.CommonName
	if name == "" && len(cert.Subject.Organization) > 0 {
		name = cert.Subject.Organization[0]
	}
	if name == "" && len(cert.DNSNames) > 0 {
		name = cert.DNSNames[0]
	}
	return printable(name)
}

// printable cuts text of the server's down to a short line without control characters.
func printable(text string) string {
	const most = 80
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	if runes := []rune(clean); len(runes) > most {
		clean = string(runes[:most]) + "…"
	}
	if clean == "" {
		return "(unnamed)"
	}
	return clean
}
