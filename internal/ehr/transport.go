package ehr

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/cura-health/ehr-sync/internal/fault"
)

const maxHeaderBytes = 1 << 20

// tlsConfig asks for TLS 1.2 or later and verifies with roots alone where they are given.
func tlsConfig(roots *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
}

func newDialer(t Timeouts) *net.Dialer {
	return &net.Dialer{Timeout: t.Dial, KeepAlive: 30 * time.Second, Control: refuseLinkLocal}
}

// refuseLinkLocal keeps requests away from link-local addresses, where clouds serve the credentials of the machine. A
// hospital's EHR may well have a private address, but never one of these.
func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fault.Wrap("connecting", fault.Network, "the address to dial can't be read", err)
	}
	if addr := ap.Addr().Unmap(); addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() {
		return fault.New("connecting", fault.Config, "the host name leads to an address that is link-local, multicast or unspecified").
			WithFix("Check the FHIR base URL and the token URL, and the DNS that this host uses")
	}
	return nil
}

// newTransport is one connection's own transport: its pool, its roots, and no proxy from the environment.
func newTransport(dialer *net.Dialer, config *tls.Config, t Timeouts) *http.Transport {
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config.Clone(),
		TLSHandshakeTimeout:    t.TLS,
		ResponseHeaderTimeout:  t.Header,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        90 * time.Second,
		ForceAttemptHTTP2:      true,
	}
}

// newStack puts the layers that every request passes on top of the transport. The bearer token is not among them.
func newStack(transport http.RoundTripper, cfg Config) http.RoundTripper {
	var stack http.RoundTripper = &userAgent{next: transport}
	stack = &requestID{next: stack}
	stack = &slowBody{next: stack, grace: cfg.Timeouts.BodyGrace, minRate: cfg.Timeouts.MinRate}
	if cfg.Pace != nil {
		stack = &paced{next: stack, pace: cfg.Pace, clock: cfg.Clock}
	}
	return &sizeCap{next: stack, limit: cfg.MaxPage}
}
