package ehr

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// ErrPastDeadline is the cause of the fault for a write whose deadline passed before its last byte was sent: what was left
// of it wasn't sent, and won't be.
var ErrPastDeadline = errors.New("the write's deadline has passed")

// attempt is one request of a write on its way.
type attempt struct {
	// deadline has a monotonic reading.
	deadline time.Time
	// stop ends the request with a cause.
	stop context.CancelCauseFunc
	// begun says that some of the request is being written, or was; left counts the bytes that have left for it, below TLS.
	// Both are settled when the round trip has failed: net/http waits for its writer then.
	begun atomic.Bool
	left  atomic.Int64
}

// attemptKey finds the attempt in a request's context.
type attemptKey struct{}

// newAttempt gives the context that a write's request is sent with. It ends at the deadline where nothing of the request is
// written by then; end frees it, once the answer is read.
func newAttempt(ctx context.Context, deadline time.Time) (sending context.Context, a *attempt, end func()) {
	ctx, stop := context.WithCancelCause(ctx)
	a = &attempt{deadline: deadline, stop: stop}
	timer := time.AfterFunc(time.Until(deadline), func() {
		if !a.begun.Load() {
			stop(ErrPastDeadline)
		}
	})
	ctx = context.WithValue(ctx, attemptKey{}, a)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		// Before the request is written, on a new connection or a pooled one. All of them are of dialer's making.
		if c, ok := got.Conn.(*writeConn); ok {
			c.fence.carry(a)
		}
	}})
	return ctx, a, func() {
		timer.Stop()
		stop(nil)
	}
}

// writeIdle is how long a connection may wait for the next write. Many servers close theirs after 5 s: one that is used in
// that very moment leaves a write whose outcome must be looked up.
const writeIdle = 4 * time.Second

// newWriteTransport is newTransport for writes: HTTP/1.1 over fenced connections, so that a connection carries one write at
// a time and a deadline is that write's alone.
func newWriteTransport(dialer *net.Dialer, config *tls.Config, t Timeouts) *http.Transport {
	transport := newTransport(dialer, config, t)
	transport.ForceAttemptHTTP2 = false
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	transport.IdleConnTimeout = writeIdle
	d := writeDialer{dialer: dialer, tls: config, timeout: t.TLS}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return d.dial(ctx, network, address, false)
	}
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return d.dial(ctx, network, address, true)
	}
	return transport
}

// writeDialer makes connections for writes.
type writeDialer struct {
	dialer *net.Dialer
	tls    *tls.Config
	// timeout is for the TLS handshake.
	timeout time.Duration
}

// dial connects, and secures the connection, for as long as the write's deadline allows.
func (d writeDialer) dial(ctx context.Context, network, address string, secure bool) (net.Conn, error) {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return nil, fault.New("connecting", fault.Unknown, "a connection for writes was asked for without a write")
	}
	ctx, cancel := context.WithDeadlineCause(ctx, a.deadline, ErrPastDeadline)
	defer cancel()
	conn, err := d.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, pastDeadline(ctx, err)
	}
	fence := &fencedConn{Conn: conn}
	fence.until(a.deadline)
	if !secure {
		return &writeConn{Conn: fence, fence: fence}, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		_ = fence.Close() // nothing was sent
		return nil, err
	}
	config := d.tls.Clone()
	config.ServerName = host
	sealed := tls.Client(fence, config)
	limited, done := context.WithTimeout(ctx, d.timeout)
	defer done()
	if err := sealed.HandshakeContext(limited); err != nil {
		_ = fence.Close() // nothing but the handshake was sent
		if limited.Err() != nil && ctx.Err() == nil {
			return nil, fault.Wrap("connecting", fault.Network, "the host didn't finish the TLS handshake in time", err).WithFix(fixNetwork)
		}
		return nil, pastDeadline(ctx, err)
	}
	return &writeConn{Conn: sealed, fence: fence}, nil
}

// pastDeadline gives ErrPastDeadline in place of an error that only says that a context has ended.
func pastDeadline(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), ErrPastDeadline) {
		return ErrPastDeadline
	}
	return err
}

// writeConn is a connection for writes, as net/http sees it. What net/http writes are requests; what TLS adds below by
// itself, such as its farewell, is none.
type writeConn struct {
	net.Conn
	fence *fencedConn
}

// Write implements [net.Conn].
func (c *writeConn) Write(p []byte) (int, error) {
	c.fence.requesting.Store(true)
	defer c.fence.requesting.Store(false)
	return c.Conn.Write(p)
}

// fencedConn lets no byte through after the deadline of the write that it carries: the clock is read right before each
// write to the socket, and one that blocks there ends at the deadline. Between the reading and the system call the process
// can be frozen, and what the kernel has taken it sends when it can: neither can be fenced from here.
type fencedConn struct {
	net.Conn
	// requesting says that what is written is of a request.
	requesting atomic.Bool

	mu       sync.Mutex
	deadline time.Time
	// carried is the last write that was handed to the connection; nil before the first.
	carried *attempt
}

// carry hands the connection to a write.
func (c *fencedConn) carry(a *attempt) {
	c.mu.Lock()
	c.carried = a
	c.mu.Unlock()
	c.until(a.deadline)
}

func (c *fencedConn) until(deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = deadline
	_ = c.SetWriteDeadline(deadline) // a connection that doesn't take it is closed, and writes nothing
}

// Write implements [net.Conn]. Past the deadline it closes the connection and gives ErrPastDeadline.
func (c *fencedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	deadline, a := c.deadline, c.carried
	c.mu.Unlock()
	if a == nil || !c.requesting.Load() {
		return c.write(p, deadline)
	}
	a.begun.Store(true)
	n, err := c.write(p, deadline)
	a.left.Add(int64(n))
	if errors.Is(err, ErrPastDeadline) {
		a.stop(ErrPastDeadline)
	}
	return n, err
}

func (c *fencedConn) write(p []byte, deadline time.Time) (int, error) {
	if !time.Now().Before(deadline) {
		_ = c.Close() // nothing more is to be sent on it
		return 0, ErrPastDeadline
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.Close() // the rest isn't to be sent
		err = ErrPastDeadline
	}
	return n, err
}
