package fault_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/fault"
)

func TestTheTextOfAFaultLeavesItsCauseOut(t *testing.T) {
	t.Parallel()
	secret := errors.New("GET /Patient?identifier=123-45-6789: John Smith, Bearer eyJhbGciOi")
	f := fault.Wrap("searching Patient", fault.Transient, "status 503", secret).After(3 * time.Second).WithFix("Wait")
	require.Equal(t, "searching Patient: transient: status 503. Wait", f.Error())
	require.ErrorIs(t, f, secret, "the cause is there for errors.Is")
	wrapped := fmt.Errorf("reading a page: %w", f)
	require.Equal(t, fault.Transient, fault.KindOf(wrapped))
	require.True(t, fault.Is(wrapped, fault.Transient))
	require.Equal(t, f.Error(), fault.Public(wrapped))
	require.NotContains(t, fault.Public(secret), "Smith", "an error that isn't a fault isn't shown")
	require.Equal(t, fault.Unknown, fault.KindOf(secret))
	require.Empty(t, fault.KindOf(nil))
}
