// Package sandbox is an EHR to rehearse on: a FHIR R4 server with SMART backend authorization, generated patients or a
// folder of given resources, and knobs that make it as difficult as real EHRs are.
//
// It shares no code with the client that reads from it, so that the two cannot agree on the same mistake. What it does
// follows FHIR R4 (http://hl7.org/fhir/R4/http.html, search.html), SMART App Launch 2.x and the RFCs 6749 and 6750.
package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultClientID is the client that is registered when Config.Clients names none.
const DefaultClientID = "cura-sync"

// Config says what a sandbox serves and where.
type Config struct {
	// Vendor is whose manners the server has, one of Vendors; "" is a general FHIR store.
	Vendor string
	// Group are the members of the Group RosterGroup, by their ids as served; nil: all patients but every tenth.
	Group []string
	// Addr is the host:port to listen on; "" means 127.0.0.1:0, and port 0 a free one.
	Addr string
	// ControlAddr is the host:port of the control endpoint; "" means 127.0.0.1:0. It must be a loopback address.
	ControlAddr string
	// DataDir is a folder whose FHIR resources are served instead of generated ones; "" generates.
	DataDir string
	// StateDir is where changes, the certificate authority and the client secret are kept between runs; "" keeps
	// everything in memory.
	StateDir string
	// Seed makes the generated data; the same seed gives the same bytes.
	Seed uint64
	// Patients is how many patients are generated; 0 means 40.
	Patients int
	// Resources, when it is more than the patients have, adds Observations until so many resources are there, the Group
	// apart. A million of them rest compressed in about half a gigabyte of memory.
	Resources int
	// Insecure serves plain http, on a loopback address only, instead of TLS.
	Insecure bool
	// Faults are the knobs to start with.
	Faults Faults
	// Clients are the registered clients, id to secret; nil registers DefaultClientID with a secret of its own.
	Clients map[string]string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Server is a running sandbox EHR. All methods are safe for concurrent use.
type Server struct {
	vendor    *vendor
	now       func() time.Time
	insecure  bool
	clients   map[string]string
	authority *authority
	store     *store
	faults    *faultBoard
	tokens    *tokens
	pages     *pageTable
	buffers   entryBuffers
	requests  requestLog
	arrivals  arrivalLog
	problems  []string

	writes sync.Mutex // one change at a time, so that the log has the order of the store
	log    *changeLog

	addr, controlAddr string
	ehr, control      *http.Server
	ehrConns          connSet
	controlConns      connSet
	certificate       certificateBox
	stopWatching      context.CancelFunc
	stopped           <-chan struct{} // closed when stopWatching was called
	closing           sync.Once
	closed            error
}

// Start loads or generates the data, then listens and serves until Close is called or ctx ends. It returns once the
// server answers. It fails for a data folder that is absent or holds broken JSON, naming file and line of up to ten
// places, and for addresses that cannot be had.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := build(ctx, cfg)
	if err != nil {
		return nil, err
	}
	ctx, s.stopWatching = context.WithCancel(ctx)
	s.stopped = ctx.Done()
	if err := s.listen(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.shutdown(context.WithoutCancel(ctx)))
	}
	context.AfterFunc(ctx, func() { _ = s.shutdown(context.WithoutCancel(ctx)) })
	return s, nil
}

// build makes a server that does not listen yet.
func build(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Faults.Validate(); err != nil {
		return nil, fmt.Errorf("reading the sandbox's knobs: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Patients = cmp.Or(cfg.Patients, 40)
	if cfg.Patients < 0 || cfg.Resources < 0 {
		return nil, errors.New("the numbers of patients and resources must be 0 or more")
	}
	manners, err := vendorNamed(cfg.Vendor)
	if err != nil {
		return nil, err
	}
	s := &Server{
		vendor: manners, now: cfg.Now, insecure: cfg.Insecure, clients: maps.Clone(cfg.Clients),
		faults: newFaultBoard(cfg.Faults, cfg.Seed), tokens: &tokens{grants: map[string]*grant{}}, pages: newPageTable(),
	}
	if s.store, err = newStore(); err != nil {
		return nil, err
	}
	s.store.now, s.store.longIDs, s.store.hidesVersions = cfg.Now, manners.longIDs, manners.hidesVersions
	base := fmt.Sprintf("seed %d, %d patients, %d resources", cfg.Seed, cfg.Patients, cfg.Resources)
	if cfg.DataDir != "" {
		dir, err := filepath.Abs(cfg.DataDir)
		if err != nil {
			return nil, fmt.Errorf("finding the data folder: %w", err)
		}
		base = "data " + dir
		if s.problems, err = loadFolder(ctx, dir, s.store); err != nil {
			return nil, err
		}
	} else if err := generate(ctx, s.store, cfg.Seed, cfg.Patients, cfg.Resources); err != nil {
		return nil, err
	}
	if err := s.store.addRoster(cfg.Group); err != nil {
		return nil, fmt.Errorf("making the Group of the patients: %w", err)
	}
	if cfg.Vendor != "" {
		base += ", vendor " + cfg.Vendor // ids are the vendor's
	}
	if err := s.openState(cfg, base); err != nil {
		return nil, err
	}
	s.store.loaded()
	return s, nil
}

// openState reads what is kept between runs.
func (s *Server) openState(cfg Config, base string) error {
	if cfg.StateDir != "" {
		if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
			return fmt.Errorf("making the sandbox's state folder: %w", err)
		}
		dir, err := stateFolder(cfg.StateDir, base)
		if err != nil {
			return err
		}
		if s.log, err = openChangeLog(dir, s.store); err != nil {
			return err
		}
	}
	if len(s.clients) == 0 {
		secret, err := keptSecret(cfg.StateDir)
		if err != nil {
			return err
		}
		s.clients = map[string]string{DefaultClientID: secret}
	}
	host, _, err := net.SplitHostPort(cmp.Or(cfg.Addr, "127.0.0.1:0"))
	if err != nil {
		return fmt.Errorf("reading the address to listen on: %w", err)
	}
	if s.authority, err = openAuthority(cfg.StateDir, host, s.now()); err != nil {
		return err
	}
	return s.showCertificate(cfg.Faults)
}

// listen opens both endpoints and serves them.
func (s *Server) listen(ctx context.Context, cfg Config) error {
	ehrAddr, controlAddr := cmp.Or(cfg.Addr, "127.0.0.1:0"), cmp.Or(cfg.ControlAddr, "127.0.0.1:0")
	if !isLoopback(controlAddr) {
		return errors.New("the control endpoint may listen on a loopback address only, such as 127.0.0.1:0")
	}
	if s.insecure && !isLoopback(ehrAddr) {
		return errors.New("plain http is served on a loopback address only: listen on 127.0.0.1, or use TLS")
	}
	var lc net.ListenConfig
	ehr, err := lc.Listen(ctx, "tcp", ehrAddr)
	if err != nil {
		return fmt.Errorf("listening for the sandbox EHR: %w", err)
	}
	control, err := lc.Listen(ctx, "tcp", controlAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("listening for the sandbox's control endpoint: %w", err), ehr.Close())
	}
	s.addr, s.controlAddr = reachable(ehr.Addr()), control.Addr().String()
	s.ehr = newHTTPServer(s.routes())
	s.ehr.ConnState = s.ehrConns.track
	s.ehr.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	s.control = newHTTPServer(s.controlRoutes())
	s.control.ConnState = s.controlConns.track
	go serve(s.control, control)
	if s.insecure {
		go serve(s.ehr, ehr)
		return nil
	}
	s.ehr.TLSConfig = s.tlsConfig()
	go func() {
		_ = s.ehr.ServeTLS(ehr, "", "") // it ends with ErrServerClosed when Close is called
	}()
	return nil
}

func serve(server *http.Server, l net.Listener) {
	_ = server.Serve(l) // it ends with ErrServerClosed when Close is called
}

func newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		// Failed handshakes are what some knobs are for; they are no news.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
}

// reachable gives an address that a client on this host can dial: an unspecified one becomes loopback.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.Trim(addr, "[]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close stops serving: requests under way are given five seconds to end. It may be called more than once.
func (s *Server) Close() error { return s.shutdown(context.Background()) }

func (s *Server) shutdown(ctx context.Context) error {
	s.closing.Do(func() {
		s.stopWatching()
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		s.ehrConns.stop()
		s.controlConns.stop()
		var errs []error
		for _, server := range []*http.Server{s.ehr, s.control} {
			if server == nil {
				continue
			}
			if err := server.Shutdown(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stopping the sandbox: %w", err), server.Close())
			}
		}
		errs = append(errs, s.log.close())
		s.closed = errors.Join(errs...)
	})
	return s.closed
}

// BaseURL is the FHIR base, such as https://127.0.0.1:8443/fhir.
func (s *Server) BaseURL() string { return s.scheme() + "://" + s.addr + "/fhir" }

// TokenURL is the OAuth token endpoint.
func (s *Server) TokenURL() string { return s.scheme() + "://" + s.addr + "/oauth/token" }

// ControlURL is the control endpoint, such as http://127.0.0.1:8444.
func (s *Server) ControlURL() string { return "http://" + s.controlAddr }

// CAPEM is the certificate of the sandbox's own authority, PEM encoded.
func (s *Server) CAPEM() []byte { return bytes.Clone(s.authority.pem) }

// ClientID is the registered client, the first by name when there are several.
func (s *Server) ClientID() string { return slices.Min(slices.Collect(maps.Keys(s.clients))) }

// ClientSecret is the secret of ClientID.
func (s *Server) ClientSecret() string { return s.clients[s.ClientID()] }

// Problems are notes on the data folder: files that were passed over, resources that came twice. They name files, and
// no resource.
func (s *Server) Problems() []string { return slices.Clone(s.problems) }

// Counts gives the live resources per type as a search for the whole type finds them. Types without any, and those
// that Faults.MissingTypes hides, are left out.
func (s *Server) Counts() map[string]int {
	counts := s.store.counts()
	for _, typ := range s.faults.get().MissingTypes {
		delete(counts, typ)
	}
	return counts
}

// MRNSystem is the identifier.system that most medical record numbers of the Patients have, "" when there is none. A
// medical record number is an identifier with type.coding.code MR or type.text MR or MRN.
func (s *Server) MRNSystem() string {
	count := map[string]int{}
	err := s.store.each("Patient", func(_ string, raw json.RawMessage) bool {
		identifiers := get(raw, "identifier")
		for _, at := range elements(identifiers) {
			identifier := identifiers[at.start:at.end]
			if system := getText(identifier, "system"); system != "" && isMRN(get(identifier, "type")) {
				count[system]++
			}
		}
		return true
	})
	if err != nil || len(count) == 0 {
		return ""
	}
	systems := slices.Sorted(maps.Keys(count))
	return slices.MaxFunc(systems, func(a, b string) int { return cmp.Compare(count[a], count[b]) })
}

func isMRN(concept []byte) bool {
	text := strings.ToUpper(strings.TrimSpace(getText(concept, "text")))
	if text == "MR" || text == "MRN" {
		return true
	}
	codings := get(concept, "coding")
	return slices.ContainsFunc(elements(codings), func(at span) bool {
		return getText(codings[at.start:at.end], "code") == "MR"
	})
}

// Put creates or changes a resource, given as JSON with resourceType and, where it has one, id. The server gives it
// the next meta.versionId and a new meta.lastUpdated. The resource need not be valid FHIR.
func (s *Server) Put(resource json.RawMessage) error {
	_, err := s.put(resource)
	return err
}

func (s *Server) put(resource json.RawMessage) (Change, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, resource); err != nil {
		return Change{}, fmt.Errorf("reading the resource: %w", err)
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	done, err := s.store.write(compact.Bytes(), writeMode{late: s.faults.get().lateBy})
	if err != nil {
		return Change{}, err
	}
	return done.Change, s.log.append(logLine{Put: done.raw})
}

// Delete removes a resource: reads answer 410 from then on, or 404 where that is the vendor's way. It fails when there is no such resource.
func (s *Server) Delete(resourceType, id string) error {
	_, err := s.remove(resourceType, id)
	return err
}

func (s *Server) remove(typ, id string) (Change, error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	c, at, err := s.store.remove(typ, id, s.now())
	if err != nil {
		return Change{}, err
	}
	return c, s.log.append(logLine{Delete: typ + "/" + id, At: formatInstant(at)})
}

// Faults gives the knobs as they are; FailNext counts are those that remain.
func (s *Server) Faults() Faults { return s.faults.get() }

// SetFaults replaces all knobs. It fails for a value that means nothing, and changes nothing then.
func (s *Server) SetFaults(f Faults) error {
	if err := f.Validate(); err != nil {
		return err
	}
	old := s.faults.get()
	s.faults.put(f)
	if f.RevokedClient {
		s.tokens.revokeAll()
	}
	if old.Certificate == f.Certificate && old.MaxTLS == f.MaxTLS {
		return nil
	}
	if err := s.showCertificate(f); err != nil {
		return err
	}
	// A connection keeps the certificate that it began with: clients must see the new one.
	s.ehrConns.closeAll()
	return nil
}

func (s *Server) scheme() string {
	if s.insecure {
		return "http"
	}
	return "https"
}

// origin is the scheme, host and port that the client used.
func (s *Server) origin(r *http.Request) string { return s.scheme() + "://" + cmp.Or(r.Host, s.addr) }

// base is the FHIR base as the client knows it.
func (s *Server) base(r *http.Request) string { return s.origin(r) + "/fhir" }

// serves tells whether the server knows a type.
func (s *Server) serves(typ string) bool {
	known := slices.Contains(coreTypes(), typ) || slices.Contains(s.vendor.writes.creates, typ) || s.store.holds(typ)
	return known && !slices.Contains(s.faults.get().MissingTypes, typ)
}

// servedTypes lists the types that the server knows, sorted.
func (s *Server) servedTypes() []string {
	missing := s.faults.get().MissingTypes
	types := slices.Concat(s.store.types(), coreTypes(), s.vendor.writes.creates)
	slices.Sort(types)
	return slices.DeleteFunc(slices.Compact(types), func(t string) bool { return slices.Contains(missing, t) })
}

func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// A resumed session would show no certificate.
		SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.certificate.config(), nil
		},
	}
}
