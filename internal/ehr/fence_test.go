package ehr

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// wire is the network below a fence: it takes what is written, at most room bytes of it, and then as a socket does whose
// buffer stays full until its deadline.
type wire struct {
	net.Conn
	got    bytes.Buffer
	room   int
	closed bool
}

func (w *wire) Write(p []byte) (int, error) {
	n := min(len(p), w.room-w.got.Len())
	w.got.Write(p[:n])
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func (*wire) SetWriteDeadline(time.Time) error { return nil }

func (w *wire) Close() error {
	w.closed = true
	return nil
}

func TestFence(t *testing.T) {
	t.Parallel()
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Nanosecond)
	cases := map[string]struct {
		deadline time.Time
		room     int
		left     string
		err      error
	}{
		"in time":                        {later, 100, "a note", nil},
		"too late":                       {past, 100, "", ErrPastDeadline},
		"too late for the rest":          {later, 3, "a n", ErrPastDeadline},
		"too late, and the buffer full":  {past, 0, "", ErrPastDeadline},
		"in time, into a full buffer":    {later, 0, "", ErrPastDeadline},
		"without any deadline: too late": {time.Time{}, 100, "", ErrPastDeadline},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			below := &wire{room: test.room}
			fence := &fencedConn{Conn: below}
			ctx, stop := context.WithCancelCause(t.Context())
			defer stop(nil)
			a := &attempt{deadline: test.deadline, stop: stop}
			fence.carry(a)
			n, err := (&writeConn{Conn: fence, fence: fence}).Write([]byte("a note"))
			require.ErrorIs(t, err, test.err)
			require.Equal(t, len(test.left), n)
			require.Equal(t, test.left, below.got.String())
			require.Equal(t, int64(n), a.left.Load())
			require.True(t, a.begun.Load())
			require.Equal(t, test.err != nil, below.closed, "a refused write closes the connection")
			require.Equal(t, test.err, context.Cause(ctx), "and ends the request")
		})
	}
}

// A pooled connection has the deadline of the write before, until the next is handed to it.
func TestFenceOfAPooledConnection(t *testing.T) {
	t.Parallel()
	below := &wire{room: 100}
	fence := &fencedConn{Conn: below}
	conn := &writeConn{Conn: fence, fence: fence}
	first := &attempt{deadline: time.Now().Add(time.Hour), stop: func(error) {}}
	fence.carry(first)
	_, err := conn.Write([]byte("one"))
	require.NoError(t, err)

	second := &attempt{deadline: time.Now().Add(-time.Second), stop: func(error) {}}
	fence.carry(second)
	_, err = conn.Write([]byte("two"))
	require.ErrorIs(t, err, ErrPastDeadline)
	require.Equal(t, int64(3), first.left.Load())
	require.Zero(t, second.left.Load())

	third := &attempt{deadline: time.Now().Add(time.Hour), stop: func(error) {}}
	fence.carry(third)
	_, err = conn.Write([]byte("three"))
	require.NoError(t, err)
	require.Equal(t, "onethree", below.got.String())
	require.Equal(t, int64(5), third.left.Load())
}

// What TLS writes by itself is fenced too, and isn't counted as the request's.
func TestFenceBelowTLS(t *testing.T) {
	t.Parallel()
	below := &wire{room: 100}
	fence := &fencedConn{Conn: below}
	a := &attempt{deadline: time.Now().Add(time.Hour), stop: func(error) {}}
	fence.until(a.deadline)
	_, err := fence.Write([]byte("hello"))
	require.NoError(t, err)
	fence.carry(a)
	_, err = fence.Write([]byte("farewell"))
	require.NoError(t, err)
	require.Zero(t, a.left.Load())
	require.False(t, a.begun.Load())
	fence.until(time.Now().Add(-time.Second))
	_, err = fence.Write([]byte("late"))
	require.ErrorIs(t, err, ErrPastDeadline)
	require.Equal(t, "hellofarewell", below.got.String())
}

// Nothing dials for writes without saying until when.
func TestWriteDialerWantsAWrite(t *testing.T) {
	t.Parallel()
	_, err := writeDialer{dialer: &net.Dialer{}}.dial(t.Context(), "tcp", "127.0.0.1:1", true)
	require.Error(t, err)
}

func TestMaybeProcessedIsTheDefault(t *testing.T) {
	t.Parallel()
	require.False(t, MaybeProcessed(nil))
	require.True(t, MaybeProcessed(errors.New("anything")))
	require.False(t, MaybeProcessed(untouched(errors.New("anything"))))
}
