package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is the sandbox's own certificate authority with the server's certificates.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	pem    []byte
	server tls.Certificate
	hosts  []string
}

const (
	caLife     = 10 * 365 * 24 * time.Hour
	serverLife = 397 * 24 * time.Hour
	renewEarly = 30 * 24 * time.Hour
)

// openAuthority reads the authority and the server's certificate from dir, or makes them; dir "" keeps them in memory.
// host is the name or address that the server is reached by, beside the loopback ones.
func openAuthority(dir, host string, now time.Time) (*authority, error) {
	a := &authority{hosts: []string{"127.0.0.1", "::1", "localhost"}}
	if host != "" && host != "127.0.0.1" && host != "::1" && host != "localhost" {
		a.hosts = append(a.hosts, host)
	}
	ca, err := loadPair(dir, "ca")
	if err != nil {
		return nil, err
	}
	if ca.Leaf == nil || now.After(ca.Leaf.NotAfter) {
		if ca, err = newCA(now); err != nil {
			return nil, err
		}
		if err := savePair(dir, "ca", ca); err != nil {
			return nil, err
		}
	}
	key, ok := ca.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the sandbox's ca.key is not an ECDSA key: delete ca.pem and ca.key, and start again")
	}
	a.cert, a.key = ca.Leaf, key
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Leaf.Raw})

	if a.server, err = loadPair(dir, "server"); err != nil {
		return nil, err
	}
	if a.serves(now) {
		return a, nil
	}
	if a.server, err = a.issue(a.hosts, now.Add(-time.Hour), now.Add(serverLife)); err != nil {
		return nil, err
	}
	return a, savePair(dir, "server", a.server)
}

// serves tells whether the stored server certificate can still be used.
func (a *authority) serves(now time.Time) bool {
	leaf := a.server.Leaf
	if leaf == nil || now.Add(renewEarly).After(leaf.NotAfter) || leaf.CheckSignatureFrom(a.cert) != nil {
		return false
	}
	for _, h := range a.hosts {
		if leaf.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}

// shown gives the certificate that the knob asks for.
func (a *authority) shown(knob string, now time.Time) (tls.Certificate, error) {
	switch knob {
	case certExpired:
		return a.issue(a.hosts, now.Add(-60*24*time.Hour), now.Add(-24*time.Hour))
	case certNotYetValid:
		return a.issue(a.hosts, now.Add(24*time.Hour), now.Add(60*24*time.Hour))
	case certWrongHost:
		return a.issue([]string{"other.sandbox.invalid"}, now.Add(-time.Hour), now.Add(serverLife))
	case certSelfSigned:
		return selfSigned(a.hosts, now)
	default:
		return a.server, nil
	}
}

func newCA(now time.Time) (tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Cura EHR Sync"}, CommonName: "Cura sandbox EHR CA"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return sign(template, nil, nil)
}

func (a *authority) issue(hosts []string, from, to time.Time) (tls.Certificate, error) {
	return sign(serverTemplate(hosts, from, to), a.cert, a.key)
}

func selfSigned(hosts []string, now time.Time) (tls.Certificate, error) {
	return sign(serverTemplate(hosts, now.Add(-time.Hour), now.Add(serverLife)), nil, nil)
}

func serverTemplate(hosts []string, from, to time.Time) *x509.Certificate {
	t := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Cura EHR Sync"}, CommonName: "Cura sandbox EHR"},
		NotBefore:             from,
		NotAfter:              to,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}

// sign makes a key and a certificate for it, signed by the parent or, without one, by itself.
func sign(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a key for the sandbox: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return tls.Certificate{}, fmt.Errorf("making a serial number: %w", err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("signing a certificate for the sandbox: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading the certificate just made: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// loadPair reads NAME.pem and NAME.key; an absent pair is no error and has no Leaf.
func loadPair(dir, name string) (tls.Certificate, error) {
	if dir == "" {
		return tls.Certificate{}, nil
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
	if errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, nil
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading the sandbox's %s.pem and %s.key: %w; delete both and start again", name, name, err)
	}
	return pair, nil
}

func savePair(dir, name string, pair tls.Certificate) error {
	if dir == "" {
		return nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return fmt.Errorf("writing the sandbox's %s.key: %w", name, err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, name+".key"), key, 0o600); err != nil {
		return fmt.Errorf("writing the sandbox's %s.key: %w", name, err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	if err := os.WriteFile(filepath.Join(dir, name+".pem"), cert, 0o600); err != nil {
		return fmt.Errorf("writing the sandbox's %s.pem: %w", name, err)
	}
	return nil
}
