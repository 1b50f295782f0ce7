package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestConsentThin is the plain way: without consent denied, with it delivered, and after a revocation denied again.
func TestConsentThin(t *testing.T) {
	t.Parallel()
	r := newConsentRig(t, hospital{patients: 2, grace: time.Second})
	r.start("")
	s := r.patients[0]
	first := r.add(s, 1)[0]
	r.await(first, "denied")
	r.grant(s)
	second := r.add(s, 1)[0]
	r.await(second, "delivered")
	r.change(s, "withdraw")
	r.settle(s)
	r.await(r.add(s, 1)[0], "denied")
	r.requireSettled(20 * time.Second)
	v := r.requireObeyed()
	require.Equal(t, 1, v.Disclosures)
	require.Equal(t, 2, v.Exempt, "the events that tell of the grant and of the revocation")
	require.Zero(t, v.Strangers)
}
