package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

const (
	plainJSON  = "application/json"
	maxControl = 64 << 20 // a resource larger than any cap, to rehearse with
)

// controlRoutes is the control endpoint. It changes data and knobs without a password, therefore it answers only
// requests from this host that are addressed to it (a web page's request under another name is refused).
func (s *Server) controlRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, plainJSON, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /info", s.controlInfo)
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, plainJSON, http.StatusOK, map[string]any{"requests": s.Requests()})
	})
	mux.HandleFunc("GET /traffic", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, plainJSON, http.StatusOK, map[string]any{"traffic": s.Traffic()})
	})
	mux.HandleFunc("GET /arrivals", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, plainJSON, http.StatusOK, map[string]any{"arrivals": s.Arrivals()})
	})
	mux.HandleFunc("GET /written", s.controlWritten)
	mux.HandleFunc("POST /held/file", s.controlFile)
	mux.HandleFunc("GET /source", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/fhir+ndjson")
		if s.Source(w) != nil {
			panic(http.ErrAbortHandler) // half an answer must not look like a whole one
		}
	})
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, plainJSON, http.StatusOK, s.Faults())
	})
	mux.HandleFunc("PUT /faults", s.controlFaults(parseFaults))
	mux.HandleFunc("PATCH /faults", s.controlFaults(func(body []byte) (Faults, error) { return s.Faults().merge(body) }))
	mux.HandleFunc("POST /changes", s.controlChange)
	mux.HandleFunc("POST /rehearse", s.controlRehearse)
	sameSite := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if !isLoopback(r.RemoteAddr) || !isLoopback(hostOnly(r.Host)) {
			controlError(w, http.StatusForbidden, "the control endpoint answers requests from this host only, to a loopback address")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxControl)
		sameSite.ServeHTTP(w, r)
	})
}

func hostOnly(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return hostPort
}

func controlError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, plainJSON, status, map[string]string{"error": text})
}

// controlInfo tells what a starter in another process needs: never the client secret.
func (s *Server) controlInfo(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, plainJSON, http.StatusOK, map[string]any{
		"base_url": s.BaseURL(), "token_url": s.TokenURL(), "client_id": s.ClientID(), "ca_pem": string(s.CAPEM()),
		"counts": s.Counts(), "mrn_system": s.MRNSystem(), "problems": s.Problems(),
	})
}

func (s *Server) controlFaults(read func([]byte) (Faults, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			controlError(w, http.StatusBadRequest, "reading the request: "+err.Error())
			return
		}
		f, err := read(body)
		if err == nil {
			err = s.SetFaults(f)
		}
		if err != nil {
			controlError(w, http.StatusBadRequest, err.Error())
			return
		}
		writeJSON(w, plainJSON, http.StatusOK, s.Faults())
	}
}

// parseFaults reads knobs strictly: a misspelled knob is an error, not silence.
func parseFaults(body []byte) (Faults, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var f Faults
	if err := d.Decode(&f); err != nil {
		return Faults{}, fmt.Errorf("reading the knobs: %w", err)
	}
	return f, nil
}

// controlChange takes a resource to create or change, or {"delete":"Type/id"}.
func (s *Server) controlChange(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		controlError(w, http.StatusRequestEntityTooLarge, "reading the request: "+err.Error())
		return
	}
	var c Change
	target := ""
	if json.Valid(body) {
		target = getText(body, "delete")
	}
	if target != "" {
		typ, id, _ := strings.Cut(target, "/")
		c, err = s.remove(typ, id)
	} else {
		c, err = s.put(body)
	}
	if err != nil {
		controlError(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, plainJSON, http.StatusOK, c)
}

func (s *Server) controlRehearse(w http.ResponseWriter, r *http.Request) {
	done, err := s.Rehearse(r.Context())
	if err != nil {
		controlError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, plainJSON, http.StatusOK, done)
}
