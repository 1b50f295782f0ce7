package stack_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/stack"
)

// takenPort is a port that somebody listens on until the test ends.
func takenPort(t *testing.T) int {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	addr, ok := l.Addr().(*net.TCPAddr)
	require.True(t, ok)
	return addr.Port
}

func TestFreePort(t *testing.T) {
	t.Parallel()
	wanted := takenPort(t)

	got, err := stack.FreePort(wanted)
	require.NoError(t, err)
	require.NotEqual(t, wanted, got, "a taken port is replaced")

	got, err = stack.FreePort(0)
	require.NoError(t, err)
	require.NotZero(t, got)
}
