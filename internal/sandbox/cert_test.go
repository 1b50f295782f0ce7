package sandbox

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func secure(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Patients = 1
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// dial makes a request on a connection of its own and gives the error of the handshake.
func dial(t *testing.T, client *http.Client, address string) (*tls.ConnectionState, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	require.NoError(t, err)
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	require.NoError(t, res.Body.Close())
	return res.TLS, nil
}

// RFC 8996: TLS 1.2 at the least. The certificate comes from the sandbox's own authority and names the loopback.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := secure(t, Config{})
	require.Regexp(t, `^https://127\.0\.0\.1:\d+/fhir$`, s.BaseURL())
	state, err := dial(t, trusting(t, s, 0), s.BaseURL()+"/metadata")
	require.NoError(t, err)
	require.GreaterOrEqual(t, state.Version, uint16(tls.VersionTLS12))
	require.Equal(t, "h2", state.NegotiatedProtocol)
	leaf := state.PeerCertificates[0]
	for _, name := range []string{"127.0.0.1", "::1", "localhost"} {
		require.NoError(t, leaf.VerifyHostname(name))
	}
	_, err = dial(t, trusting(t, s, tls.VersionTLS11), s.BaseURL()+"/metadata")
	require.ErrorContains(t, err, "protocol version")
	_, err = dial(t, plain(), s.BaseURL()+"/metadata")
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown, "nobody trusts it by default")
}

// brokenOff tells whether a request met the connection at the moment that it was closed.
func brokenOff(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func TestCertificateKnobs(t *testing.T) {
	t.Parallel()
	s := secure(t, Config{Faults: Faults{Certificate: "expired"}})
	client := trusting(t, s, 0)
	address := s.BaseURL() + "/metadata"
	_, err := dial(t, client, address)
	require.ErrorContains(t, err, "expired")

	knobs(t, s, Faults{})
	_, err = dial(t, client, address)
	require.NoError(t, err)

	// The client holds an open connection now: a new certificate must be seen all the same.
	for knob, want := range map[string]string{
		"self-signed": "unknown authority", "not-yet-valid": "not yet valid", "wrong-host": "127.0.0.1", "expired": "expired",
	} {
		knobs(t, s, Faults{Certificate: knob})
		if _, err = dial(t, client, address); brokenOff(err) {
			_, err = dial(t, client, address)
		}
		require.ErrorContains(t, err, want, knob)
		client.CloseIdleConnections()
		knobs(t, s, Faults{})
		_, err = dial(t, client, address)
		require.NoError(t, err)
	}

	client.CloseIdleConnections()
	knobs(t, s, Faults{MaxTLS: "1.1"})
	state, err := dial(t, client, address)
	require.NoError(t, err)
	require.Equal(t, uint16(tls.VersionTLS11), state.Version)
	client.CloseIdleConnections()
	transport, ok := client.Transport.(*http.Transport)
	require.True(t, ok)
	transport.TLSClientConfig.MinVersion = tls.VersionTLS12
	_, err = dial(t, client, address)
	require.ErrorContains(t, err, "protocol version", "a client that insists on TLS 1.2 is refused")
}

func TestAuthoritySurvives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	clock := newClock()
	first, err := openAuthority(dir, "127.0.0.1", clock.now())
	require.NoError(t, err)
	block, rest := pem.Decode(first.pem)
	require.Empty(t, rest)
	ca, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	require.True(t, ca.IsCA)

	again, err := openAuthority(dir, "127.0.0.1", clock.now())
	require.NoError(t, err)
	require.Equal(t, first.pem, again.pem)
	require.Equal(t, first.server.Certificate, again.server.Certificate)

	named, err := openAuthority(dir, "ehr.internal", clock.now())
	require.NoError(t, err)
	require.Equal(t, first.pem, named.pem)
	require.NoError(t, named.server.Leaf.VerifyHostname("ehr.internal"), "a new name needs a new certificate")

	clock.advance(serverLife - renewEarly + time.Hour)
	renewed, err := openAuthority(dir, "127.0.0.1", clock.now())
	require.NoError(t, err)
	require.Equal(t, first.pem, renewed.pem)
	require.True(t, renewed.server.Leaf.NotAfter.After(clock.now().Add(renewEarly)), "renewed before it ends")
}
