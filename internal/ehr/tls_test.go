package ehr_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Hospital Root CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{cert, key}
}

func (a authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// sign makes a server certificate for 127.0.0.1, changed as the test likes; a nil authority lets it sign itself.
func sign(t *testing.T, a *authority, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ehr.hospital.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveTLS serves a hospital under its own TLS settings and gives the address.
func serveTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	h := newHospital(t)
	s := httptest.NewUnstartedServer(h)
	s.TLS = config
	s.Config.ErrorLog = h.Config.ErrorLog
	s.StartTLS()
	t.Cleanup(s.Close)
	h.on("/fhir/.well-known/smart-configuration", text(http.StatusOK, `{"token_endpoint":"`+s.URL+`/token"}`))
	return s.URL
}

func TestTLSFaults(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	day := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.DateOnly) }
	cases := map[string]struct {
		config      *tls.Config
		caPEM       string
		detail, fix string
	}{
		"self-signed": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, nil, nil)}}, "",
			"self-signed", "--ca",
		},
		"unknown authority": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, &ca, nil)}}, "",
			"isn't trusted here", "--ca",
		},
		"another CA given": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, &ca, nil)}}, newAuthority(t).pem(),
			"isn't trusted here", "--ca",
		},
		"expired": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, &ca, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-72*time.Hour), time.Now().Add(-48*time.Hour)
			})}}, ca.pem(),
			"expired on " + day(-48*time.Hour), "renew",
		},
		"not valid yet": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, &ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(48 * time.Hour) })}}, ca.pem(),
			"isn't valid before " + day(48*time.Hour), "clock",
		},
		"another host": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, &ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 9, 8, 7)} })}}, ca.pem(),
			"another host name", "host name",
		},
		"for clients only": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, &ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })}}, ca.pem(),
			"doesn't verify", "valid for TLS servers",
		},
		"TLS 1.1": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, &ca, nil)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, ca.pem(),
			"no TLS version from 1.2 on", "TLS 1.2",
		},
		"wants a client certificate": {
			&tls.Config{Certificates: []tls.Certificate{sign(t, &ca, nil)}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, ca.pem(),
			"broke the TLS handshake off", "client certificate",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serveTLS(t, test.config)
			cfg := ehr.Config{BaseURL: address + "/fhir", ClientID: clientID, Secret: secret, CAPEM: test.caPEM}
			f := requireFault(t, search(t, newClient(t, cfg)), fault.TLS)
			require.Contains(t, f.Detail, test.detail)
			require.Contains(t, f.Fix, test.fix)

			report := ehr.Test(t.Context(), cfg, ehr.TestOptions{})
			last := report.Checks[len(report.Checks)-1]
			require.Equal(t, ehr.CheckTLS, last.Name, "later checks are left out")
			require.Equal(t, cura.VerdictFailed, last.Verdict)
			require.Contains(t, last.Seen, test.detail)
			require.Equal(t, f.Fix, last.Fix)
		})
	}
}

func TestGivenCAReplacesTheSystemsRoots(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	leaf := sign(t, &ca, nil)
	address := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{leaf}})
	for name, text := range map[string]string{
		"the CA":          ca.pem(),
		"several":         newAuthority(t).pem() + "a comment\n" + ca.pem(),
		"the leaf itself": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, search(t, newClient(t, ehr.Config{BaseURL: address + "/fhir", ClientID: clientID, Secret: secret, CAPEM: text})))
		})
	}
}

func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	garbage := listen(t, func(conn net.Conn) { _, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.6\r\n")) })
	silent := listen(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1<<16)) })
	cases := map[string]struct {
		base   string
		kind   fault.Kind
		detail string
		check  string
	}{
		"no such host":      {"https://ehr.invalid/fhir", fault.Network, "", ehr.CheckDNS},
		"nobody listens":    {"https" + closed.URL[4:] + "/fhir", fault.Network, "no connection", ehr.CheckTCP},
		"plain http there":  {"https" + plain.URL[4:] + "/fhir", fault.TLS, "doesn't speak TLS", ehr.CheckTLS},
		"not HTTP at all":   {"https://" + garbage + "/fhir", fault.TLS, "doesn't speak TLS", ehr.CheckTLS},
		"link-local":        {"https://169.254.169.254/fhir", fault.Config, "link-local", ehr.CheckTCP},
		"link-local, IPv6":  {"https://[fe80::1]/fhir", fault.Config, "link-local", ehr.CheckTCP},
		"unspecified":       {"https://0.0.0.0/fhir", fault.Config, "unspecified", ehr.CheckTCP},
		"handshake hanging": {"https://" + silent + "/fhir", fault.Network, "didn't finish the TLS handshake", ehr.CheckTLS},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := ehr.Config{BaseURL: test.base, ClientID: clientID, Secret: secret}
			if name == "handshake hanging" {
				cfg.Timeouts.TLS = 100 * time.Millisecond
			}
			f := requireFault(t, search(t, newClient(t, cfg)), test.kind)
			require.Contains(t, f.Detail, test.detail)
			require.NotEmpty(t, f.Fix)

			report := ehr.Test(t.Context(), cfg, ehr.TestOptions{})
			last := report.Checks[len(report.Checks)-1]
			require.Equal(t, test.check, last.Name, "%+v", report.Checks)
			require.Equal(t, cura.VerdictFailed, last.Verdict)
			require.NotEmpty(t, last.Fix)
		})
	}
}

// listen accepts connections and hands each to serve, until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		close(done)
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				serve(conn)
				<-done
			}()
		}
	}()
	return l.Addr().String()
}

func TestProxyOfTheEnvironmentIsIgnored(t *testing.T) {
	proxy := newHospital(t)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("HTTP_PROXY", proxy.URL)
	h := newHospital(t)
	require.NoError(t, search(t, h.client(t)))
	require.Empty(t, proxy.asked(""))
}
