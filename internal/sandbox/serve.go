package sandbox

import (
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// certificateBox holds the TLS settings that new connections get.
type certificateBox struct {
	current atomic.Pointer[tls.Config]
}

func (b *certificateBox) config() *tls.Config { return b.current.Load() }

// showCertificate puts the certificate and TLS version of the knobs up.
func (s *Server) showCertificate(f Faults) error {
	cert, err := s.authority.shown(f.Certificate, s.now())
	if err != nil {
		return err
	}
	c := &tls.Config{
		Certificates:           []tls.Certificate{cert},
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
	}
	if f.MaxTLS != "" {
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		c.NextProtos = nil // HTTP/2 needs TLS 1.2
	}
	s.certificate.current.Store(c)
	return nil
}

// connSet knows the open connections, so that they can be closed when the certificate changes or the server stops.
type connSet struct {
	mu       sync.Mutex
	open     map[net.Conn]http.ConnState
	stopping bool
}

func (c *connSet) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[net.Conn]http.ConnState{}
	}
	switch state {
	case http.StateNew:
		c.open[conn] = state
		if c.stopping {
			_ = conn.Close() // see stop
		}
	case http.StateActive, http.StateIdle:
		c.open[conn] = state
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
}

// closeAll breaks every connection, as a restart of the EHR would.
func (c *connSet) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		_ = conn.Close() // a connection that is closed already is as good
	}
}

// stop closes the connections that never carried a request: http.Server.Shutdown waits five seconds for each of them.
func (c *connSet) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	for conn, state := range c.open {
		if state == http.StateNew {
			_ = conn.Close() // a connection that is closed already is as good
		}
	}
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter

	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// observed puts in front of all answers: the log, the latency, and the headers that every one has.
func (s *Server) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := s.now()
		f := s.faults.get()
		id := randomText()
		h := w.Header()
		h.Set("X-Request-Id", id)
		h.Set("Cache-Control", "no-store") // what is served is personal (R4 §6.1.0.1; RFC 6749 §5.1)
		h.Set("Date", s.now().Add(f.skew()).UTC().Format(http.TimeFormat))
		rec := &recorder{ResponseWriter: w}
		kind, typ := s.kindOf(r)
		defer func() { // also of an answer that breaks off
			query := r.URL.RawQuery
			if r.PostForm != nil && strings.HasSuffix(r.URL.Path, "/_search") {
				query = strings.Trim(query+"&"+r.PostForm.Encode(), "&")
			}
			s.requests.add(Request{
				At: at, Method: r.Method, Path: r.URL.Path, Query: query, Kind: kind, Type: typ, Status: rec.status,
				Authorization: r.Header.Get("Authorization") != "", RequestID: id,
			})
		}()
		if kind == kindCreate || kind == kindUpdate {
			var end func(status int)
			r, end = s.arrive(rec, r, at, typ)
			defer func() { end(rec.status) }()
		}
		if wait(r, time.Duration(f.LatencyMS)*time.Millisecond) {
			v := s.faults.admit(at)
			switch {
			case v.status == 0:
				next.ServeHTTP(rec, r)
			case kind == kindToken:
				refuseToken(rec, v)
			default:
				v.problem().write(rec)
			}
		}
	})
}

// wait delays an answer; it tells whether the client is still there.
func wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
