package ehr

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cura-health/ehr-sync/internal/fault"
)

const (
	fixNetwork = "Check the FHIR base URL, DNS and the firewall between this host and the hospital"
	fixCA      = "Give the hospital's CA certificate with --ca"
	fixOldTLS  = "Ask the hospital to serve TLS 1.2 or later"
)

// transportFault makes a fault of a request that got no answer, or not the whole of one. Before a connection stood it is
// fault.Network or fault.TLS; afterwards fault.Transient, since the way there is known to be open. The cause's text can
// hold URLs and is not printed.
func transportFault(ctx context.Context, op string, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if ctx.Err() != nil {
		// Asked first: a cancelled dial or handshake looks like a network that doesn't answer.
		return fault.Wrap(op, fault.Transient, "it was cancelled or ran out of its time", context.Cause(ctx))
	}
	switch {
	case errors.Is(err, ErrPageTooLarge):
		return fault.Wrap(op, fault.Protocol, "the answer is larger than the cap", err).WithFix("Ask for fewer resources a page")
	case errors.Is(err, errTooSlow):
		return fault.Wrap(op, fault.Transient, "the answer came too slowly and was given up", err).
			WithFix("If it stays, ask the hospital about its FHIR server and the line to it")
	}
	if carried, ok := errors.AsType[*url.Error](err); ok {
		err = carried.Err // without the URL: some of what follows looks at the text
	}
	if f := tlsFault(op, err); f != nil {
		return f
	}
	if f := dialFault(op, err); f != nil {
		return f
	}
	detail := "the connection broke before the answer was whole"
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		detail = "the server took the request and didn't answer in time"
	}
	return fault.Wrap(op, fault.Transient, detail, err).WithFix("If it stays, ask the hospital about its FHIR server and the line to it")
}

// tlsFault is nil for an error that isn't about TLS.
func tlsFault(op string, err error) *fault.Error {
	var (
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		remote   *net.OpError
	)
	say := func(detail, fix string) *fault.Error { return fault.Wrap(op, fault.TLS, detail, err).WithFix(fix) }
	switch {
	case errors.As(err, &unknown):
		if unknown.Cert != nil && selfSigned(unknown.Cert) {
			return say("the server's certificate is self-signed and no CA given vouches for it", fixCA)
		}
		return say("the server's certificate is signed by an authority that isn't trusted here", fixCA)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		const fix = "Ask the hospital to renew its certificate, and check this host's clock"
		if time.Now().Before(invalid.Cert.NotBefore) {
			return say("a certificate of the server isn't valid before "+day(invalid.Cert.NotBefore), fix)
		}
		return say("a certificate of the server expired on "+day(invalid.Cert.NotAfter), fix)
	case errors.As(err, &hostname):
		return say("the server's certificate is for another host name", "Use the host name that the certificate is for, or ask the hospital for a certificate for this one")
	case errors.As(err, &verify), errors.As(err, &invalid):
		return say("the server's certificate doesn't verify", "Ask the hospital for a certificate that is valid for TLS servers. "+fixCA)
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return say("the server doesn't speak TLS at this port", "Check the port of the URL, or ask the hospital for its https address")
	case strings.Contains(err.Error(), "tls: server selected unsupported protocol version"), strings.Contains(err.Error(), "tls: protocol version not supported"):
		return say("the server speaks no TLS version from 1.2 on", fixOldTLS)
	case errors.As(err, &remote) && remote.Op == "remote error": // how crypto/tls reports an alert of the server
		return say("the server broke the TLS handshake off", "Ask the hospital which TLS versions and ciphers its server takes, and whether it wants a client certificate")
	case strings.Contains(err.Error(), "tls: "):
		return say("the TLS handshake didn't come about", fixOldTLS)
	default:
		return nil
	}
}

// selfSigned asks the signature too: a CA may have a subject like its issuer's.
func selfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) && cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// dialFault is nil for an error after the connection stood.
func dialFault(op string, err error) *fault.Error {
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		detail := "the host name couldn't be looked up"
		if name.IsNotFound {
			detail = "the host name isn't known to DNS"
		}
		return fault.Wrap(op, fault.Network, detail, err).WithFix("Check the spelling of the host name, and whether this host uses the hospital's DNS or VPN")
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		detail := "no connection to the host and port"
		if dial.Timeout() {
			detail = "the host didn't answer the connection attempt in time"
		}
		return fault.Wrap(op, fault.Network, detail, err).WithFix(fixNetwork)
	}
	if strings.Contains(err.Error(), "TLS handshake timeout") { // net/http keeps the type to itself
		return fault.Wrap(op, fault.Network, "the host didn't finish the TLS handshake in time", err).WithFix(fixNetwork)
	}
	return nil
}

// asFault gives err's fault, and for an error that nobody classified one that says so.
func asFault(err error) *fault.Error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	return fault.Wrap("talking to the EHR", fault.Unknown, "an unclassified error", err).WithFix(fixNetwork)
}
