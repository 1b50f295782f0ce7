package ehr_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// TestDeadlineIsEachWritesOwn: a pooled connection takes the deadline of the write that it carries.
func TestDeadlineIsEachWritesOwn(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on(notes, created)
	c := h.client(t)
	first := inTime()
	first.Deadline = time.Now().Add(500 * time.Millisecond)
	_, err := send(t, c, first)
	require.NoError(t, err)

	past, cancel := context.WithDeadline(t.Context(), first.Deadline)
	defer cancel()
	<-past.Done()
	_, err = send(t, c, inTime())
	require.NoError(t, err)
	asked := h.asked(notes)
	require.Len(t, asked, 2)
	require.Equal(t, asked[0].RemoteAddr, asked[1].RemoteAddr, "the same connection, with a new deadline")

	_, err = send(t, c, first)
	requireWriteFault(t, err, fault.Transient, false)
	require.ErrorIs(t, err, ehr.ErrPastDeadline)
	require.Len(t, h.asked(notes), 2, "not a byte of it")
}

// TestDeadlineCutsABodyOff: a server that takes no more keeps the rest from leaving later.
func TestDeadlineCutsABodyOff(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	body := bytes.Repeat([]byte("a"), 64<<20) // more than the buffers between take
	release, count := make(chan struct{}), make(chan int64, 1)
	h.on(notes, func(_ http.ResponseWriter, r *http.Request) {
		<-release
		n, _ := io.Copy(io.Discard, r.Body)
		count <- n
	})
	r := inTime()
	r.Body, r.Deadline = body, time.Now().Add(500*time.Millisecond)
	s, err := h.client(t).Prepare(t.Context())
	require.NoError(t, err)
	patience, cancel := context.WithTimeout(t.Context(), 30*time.Second) // without a fence it would never end
	defer cancel()
	_, err = s.Send(patience, r)
	close(release)
	requireWriteFault(t, err, fault.Transient, true)
	require.ErrorIs(t, err, ehr.ErrPastDeadline)
	require.Less(t, <-count, int64(len(body)))
}

// TestBrokenConnections: which breaks leave the outcome open.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		h := newHospital(t)
		c := h.client(t)
		s, err := c.Prepare(t.Context())
		require.NoError(t, err)
		h.Close()
		_, err = s.Send(t.Context(), inTime())
		requireWriteFault(t, err, fault.Network, false)
	})
	t.Run("the handshake breaks", func(t *testing.T) {
		t.Parallel()
		_, err := sendTo(t, func(conn net.Conn) { _ = conn.Close() })
		require.False(t, ehr.MaybeProcessed(err), err)
	})
	t.Run("the handshake never ends", func(t *testing.T) {
		t.Parallel()
		_, err := sendTo(t, func(net.Conn) {})
		requireWriteFault(t, err, fault.Network, false)
	})
	t.Run("cancelled before", func(t *testing.T) {
		t.Parallel()
		h := newHospital(t)
		s, err := h.client(t).Prepare(t.Context())
		require.NoError(t, err)
		ctx, cancel := contextWithCancel(t)
		cancel()
		_, err = s.Send(ctx, inTime())
		requireWriteFault(t, err, fault.Transient, false)
		require.Empty(t, h.asked(notes))
	})
	t.Run("cancelled after", func(t *testing.T) {
		t.Parallel()
		h := newHospital(t)
		ctx, cancel := contextWithCancel(t)
		h.on(notes, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		})
		s, err := h.client(t).Prepare(t.Context())
		require.NoError(t, err)
		_, err = s.Send(ctx, inTime())
		requireWriteFault(t, err, fault.Transient, true)
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("no answer in time", func(t *testing.T) {
		t.Parallel()
		h := newHospital(t)
		h.on(notes, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
		_, err := send(t, h.client(t, func(cfg *ehr.Config) { cfg.Timeouts.Header = 100 * time.Millisecond }), inTime())
		requireWriteFault(t, err, fault.Transient, true)
	})
	t.Run("reset after it was read", func(t *testing.T) {
		t.Parallel()
		h := newHospital(t)
		h.on(notes, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			reset(w)
		})
		_, err := send(t, h.client(t), inTime())
		requireWriteFault(t, err, fault.Transient, true)
		require.Len(t, h.asked(notes), 1, "and nothing sends it again")
	})
}

// sendTo sends to a host that does that with every connection, by a client with a short patience for handshakes.
func sendTo(t *testing.T, do func(net.Conn)) (ehr.Receipt, error) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		var held []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			held = append(held, conn)
			do(conn)
		}
		for _, conn := range held {
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		accepting.Wait()
	})
	// The token comes from a hospital that answers; only the FHIR base doesn't.
	h := newHospital(t)
	c := h.client(t, func(cfg *ehr.Config) {
		cfg.BaseURL, cfg.TokenURL = "https://"+listener.Addr().String()+"/fhir", h.URL+"/token"
		cfg.Timeouts.TLS = 200 * time.Millisecond
	})
	return send(t, c, inTime())
}

// reset ends a connection as a crash does.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if below, ok := conn.(interface{ NetConn() net.Conn }); ok {
		if tcp, ok := below.NetConn().(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
			return
		}
	}
	_ = conn.Close()
}

// TestNoOutcomeIsGuessed sends many writes to a server that breaks in every way it can, on pooled connections too: what is
// called unprocessed never was, what has a receipt was, and nothing was twice.
func TestNoOutcomeIsGuessed(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	var mu sync.Mutex
	processed := map[string]int{}
	h.on(notes, func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("If-None-Exist")
		process := func() {
			_, _ = io.Copy(io.Discard, r.Body)
			mu.Lock()
			processed[id]++
			mu.Unlock()
		}
		switch id[len(id)-1] {
		case '1':
			process()
			reset(w)
		case '2':
			reset(w)
		case '3':
			text(http.StatusTooManyRequests, "")(w, r)
		case '4':
			process()
			text(http.StatusInternalServerError, "")(w, r)
		case '5':
			process()
			created(w, r)
			_ = http.NewResponseController(w).Flush()
			reset(w) // as a keep-alive that ends at once
		case '6':
			process()
			w.Header().Set("Connection", "close")
			created(w, r)
		default:
			process()
			created(w, r)
		}
	})
	c := h.client(t)
	var senders sync.WaitGroup
	for worker := range 4 {
		senders.Go(func() {
			for i := range 100 {
				r := inTime()
				r.IfNoneExist = "identifier=" + strings.Repeat("w", worker+1) + strings.Repeat("i", i/10) + string(rune('0'+i%10))
				s, err := c.Prepare(t.Context())
				if !fine(t, err) {
					return
				}
				_, err = s.Send(t.Context(), r)
				mu.Lock()
				n := processed[r.IfNoneExist]
				mu.Unlock()
				switch {
				case err == nil && n != 1:
					t.Errorf("a receipt for what was processed %d times", n)
				case err != nil && !ehr.MaybeProcessed(err) && n != 0:
					t.Errorf("called unprocessed, and was processed %d times: %v", n, err)
				case n > 1:
					t.Errorf("processed %d times", n)
				}
			}
		})
	}
	senders.Wait()
}

func fine(t *testing.T, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}
