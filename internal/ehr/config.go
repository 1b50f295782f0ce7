package ehr

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/fault"
	"github.com/cura-health/ehr-sync/internal/profile"
)

// Config is all that a [Client] needs to know of one connection. New checks it once.
type Config struct {
	// BaseURL is the FHIR base, such as https://ehr.hospital.example/fhir/R4; a trailing slash is ignored.
	BaseURL string
	// TokenURL is the OAuth 2.0 token endpoint. Empty: it is discovered from .well-known/smart-configuration, and has
	// to lie under the same domain as the FHIR base, because the client's secret is sent there.
	TokenURL string
	// ClientID and Secret are the client's credentials (SMART Backend Services with a shared secret).
	ClientID string
	Secret   string `json:"-"`
	// Scopes are asked for with each token. Empty: no scope parameter is sent, and the server grants what it has
	// registered (Epic wants it so: DOMAIN §1).
	Scopes []string
	// CAPEM holds the certificates that the hospital's server is verified with. It replaces the system's roots.
	CAPEM string
	// InsecureLoopback allows plain http, to a loopback address alone, for rehearsals.
	InsecureLoopback bool
	// MaxResource is the largest resource taken, in bytes; default 16 MiB. A larger one on a page becomes an entry
	// marked oversize.
	MaxResource int64
	// MaxPage is the largest answer read, in bytes after decompression; default 64 MiB.
	MaxPage int64
	// PageSize is the _count that is asked for where a query names none; default 500. The server decides.
	PageSize int
	// MaxPages ends a chain of next links that never ends by itself; default 100,000 pages.
	MaxPages int
	// Profile is what the vendor's server can do and demands: its headers, fixed query, page sizes and paging hosts hold for
	// every request. Default: the built-in profile generic.
	Profile *profile.Profile
	// Pace is asked before every request to the hospital; nil: requests go at once.
	Pace Pace
	// Timeouts bound every request.
	Timeouts Timeouts
	// Clock gives the time for token renewal, clock skew and certificate expiry; default time.Now.
	Clock func() time.Time
}

// Timeouts bound one request. The time for a body grows with its size, so that a large page may take its time and a
// server that dribbles may not.
type Timeouts struct {
	// Dial is the time to connect; default 5 s.
	Dial time.Duration
	// TLS is the time for the TLS handshake; default 10 s.
	TLS time.Duration
	// Header is the time from the request to the answer's headers; default 60 s, since EHR searches are slow.
	Header time.Duration
	// BodyGrace is the time a body may take whatever its size; default 30 s.
	BodyGrace time.Duration
	// MinRate is the slowest average rate of a body beyond the grace, in bytes a second; default 32 KiB/s.
	MinRate int64
}

// The defaults of Config.
const (
	defaultMaxResource = 16 << 20
	defaultMaxPage     = 64 << 20
	defaultPageSize    = 500
	defaultMaxPages    = 100_000
	defaultDial        = 5 * time.Second
	defaultTLS         = 10 * time.Second
	defaultHeader      = 60 * time.Second
	defaultBodyGrace   = 30 * time.Second
	defaultMinRate     = 32 << 10
)

const fixConnection = "Correct it with starter connection edit"

// String names the endpoint and the client, never the secret.
func (cfg Config) String() string { return "ehr.Config{" + cfg.BaseURL + " " + cfg.ClientID + "}" }

// GoString is String: %#v must not print the secret either.
func (cfg Config) GoString() string { return cfg.String() }

// LogValue is String for log/slog.
func (cfg Config) LogValue() slog.Value { return slog.StringValue(cfg.String()) }

func (cfg Config) withDefaults() Config {
	orDefault(&cfg.MaxResource, defaultMaxResource)
	orDefault(&cfg.MaxPage, defaultMaxPage)
	orDefault(&cfg.PageSize, defaultPageSize)
	orDefault(&cfg.MaxPages, defaultMaxPages)
	orDefault(&cfg.Timeouts.Dial, defaultDial)
	orDefault(&cfg.Timeouts.TLS, defaultTLS)
	orDefault(&cfg.Timeouts.Header, defaultHeader)
	orDefault(&cfg.Timeouts.BodyGrace, defaultBodyGrace)
	orDefault(&cfg.Timeouts.MinRate, defaultMinRate)
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return cfg
}

func orDefault[N int | int64 | time.Duration](field *N, value N) {
	if *field <= 0 {
		*field = value
	}
}

// profile gives the connection's profile, with nothing left to fill in.
func (cfg Config) profile() (*profile.Profile, error) {
	if cfg.Profile == nil {
		return profile.Builtin(profile.Generic)
	}
	return cfg.Profile.Fill(nil)
}

// parseBase checks the FHIR base and gives it without a trailing slash.
func (cfg Config) parseBase() (*url.URL, error) {
	u, err := parseEndpoint("FHIR base URL", cfg.BaseURL, cfg.InsecureLoopback)
	if err != nil {
		return nil, err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return nil, fault.New("reading the FHIR base URL", fault.Config, "it has a query").
			WithFix("Give the address alone, such as https://ehr.hospital.example/fhir/R4")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	if strings.HasSuffix(u.Path, "/metadata") || strings.Contains(u.Path, "/.well-known") {
		return nil, fault.New("reading the FHIR base URL", fault.Config, "it names a document below the FHIR base").
			WithFix("Give the FHIR base itself, without /metadata or /.well-known")
	}
	return u, nil
}

// parseEndpoint checks one address that the client will talk to: https, or http to a loopback address where that was
// allowed. Its errors don't repeat the address, which may hold a password.
func parseEndpoint(what, text string, insecureLoopback bool) (*url.URL, error) {
	op := "reading the " + what
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, fault.Wrap(op, fault.Config, "it isn't an absolute URL", err).
			WithFix("Give it in full, such as https://ehr.hospital.example/fhir/R4")
	case u.User != nil:
		return nil, fault.New(op, fault.Config, "it holds a user name or password").
			WithFix("Leave them out: the client id and secret are given apart")
	case u.Fragment != "":
		return nil, fault.New(op, fault.Config, "it has a fragment").WithFix("Leave out # and what follows")
	}
	switch strings.ToLower(u.Scheme) {
	case "https":
		return u, nil
	case "http":
		switch {
		case !loopback(u.Hostname()):
			return nil, fault.New(op, fault.Config, "plain http would send patient data and the secret in the clear").
				WithFix("Give the https address of the EHR")
		case !insecureLoopback:
			return nil, fault.New(op, fault.Config, "plain http to a loopback address needs to be allowed").
				WithFix("Use https, or add --insecure-loopback for a rehearsal")
		}
		return u, nil
	default:
		return nil, fault.New(op, fault.Config, "it is neither https nor http").WithFix("Give the https address of the EHR")
	}
}

// loopback knows addresses and the one name that RFC 6761 §6.3 ties to them; any other name could be resolved to
// whatever its owner likes.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
}

// parseCA reads the CA file. It gives nil, the system's roots, for an empty text.
func (cfg Config) parseCA() (*x509.CertPool, error) {
	if strings.TrimSpace(cfg.CAPEM) == "" {
		return nil, nil // a nil pool is how crypto/tls spells the system's roots
	}
	const op = "reading the CA file"
	const fix = "Ask the hospital for its CA certificate in PEM form (-----BEGIN CERTIFICATE-----) and give it with --ca"
	pool, found := x509.NewCertPool(), 0
	for rest := []byte(cfg.CAPEM); ; found++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN")) {
				return nil, fault.Newf(op, fault.Config, "block %d is cut short or isn't base64", found+1).WithFix(fix)
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fault.Newf(op, fault.Config, "block %d isn't a certificate", found+1).WithFix(fix)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.Wrap(op, fault.Config, "a certificate in it can't be parsed", err).WithFix(fix)
		}
		pool.AddCert(cert)
	}
	if found == 0 {
		return nil, fault.New(op, fault.Config, "it holds no PEM certificate").WithFix(fix)
	}
	return pool, nil
}
