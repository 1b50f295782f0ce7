package e2e

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// wire is a line to the EHR that can hold what is on it: bytes that have left their sender and haven't arrived.
type wire struct {
	held chan struct{} // closed when there is something that is held

	mu   sync.Mutex
	gate chan struct{} // closed: the line is open
	once *sync.Once
}

// newWire makes a line that is open.
func newWire() *wire {
	open := make(chan struct{})
	close(open)
	return &wire{gate: open}
}

// hold keeps from now on all that is sent to the EHR; it gives what is closed when there is something. release lets it go on.
func (w *wire) hold() (held <-chan struct{}, release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	gate := make(chan struct{})
	w.gate, w.held, w.once = gate, make(chan struct{}), &sync.Once{}
	return w.held, sync.OnceFunc(func() { close(gate) })
}

func (w *wire) pass() {
	w.mu.Lock()
	gate, held, once := w.gate, w.held, w.once
	w.mu.Unlock()
	select {
	case <-gate:
		return
	default:
	}
	once.Do(func() { close(held) })
	<-gate
}

// open has the line lead to an EHR, and gives the base URL that leads through it.
func (w *wire) open(tb testing.TB, baseURL string) string {
	tb.Helper()
	base, err := url.Parse(baseURL)
	require.NoError(tb, err)
	to := base.Host
	var lc net.ListenConfig
	listener, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, listener.Close()) })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go w.lead(from, to)
		}
	}()
	base.Host = listener.Addr().String()
	return base.String()
}

// lead carries one connection. What came before the sender's end is delivered, then the end.
func (w *wire) lead(from net.Conn, to string) {
	ehr, err := (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", to)
	if err != nil {
		_ = from.Close() // as the EHR would
		return
	}
	go func() {
		_, _ = io.Copy(from, ehr) // either side may end it
		_ = from.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			w.pass()
			if _, err := ehr.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = ehr.Close() // as the sender did
}
