package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/sandbox"
)

// TestTheEndpointTestSaysWhatIsWrongAndHowToMendIt breaks one thing at a time, and mends it again.
func TestTheEndpointTestSaysWhatIsWrongAndHowToMendIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 20})
	personal := r.personal()
	for _, c := range []struct {
		name    string
		faults  sandbox.Faults
		check   string
		verdict cura.Verdict
	}{
		{"HTML instead of JSON", sandbox.Faults{HTML: true}, "metadata", cura.VerdictFailed},
		{"an STU3 server", sandbox.Faults{STU3: true}, "metadata", cura.VerdictFailed},
		{"an expired certificate", sandbox.Faults{Certificate: "expired"}, "tls", cura.VerdictFailed},
		{"a self-signed certificate", sandbox.Faults{Certificate: "self-signed"}, "tls", cura.VerdictFailed},
		{"another host's certificate", sandbox.Faults{Certificate: "wrong-host"}, "tls", cura.VerdictFailed},
		{"TLS 1.1", sandbox.Faults{MaxTLS: "1.1"}, "tls", cura.VerdictFailed},
		{"a revoked client", sandbox.Faults{RevokedClient: true}, "token", cura.VerdictFailed},
		{"a scope that wasn't granted", sandbox.Faults{GrantedScopes: "system/Patient.rs"}, "scopes", cura.VerdictWarning},
		{"a scope that is too broad", sandbox.Faults{GrantedScopes: "system/*.*"}, "scope-breadth", cura.VerdictWarning},
		{"a clock that is ten minutes off", sandbox.Faults{ClockSkewSeconds: 600}, "clock", cura.VerdictFailed},
		{"one forbidden type", sandbox.Faults{RefuseTypes: []string{"Consent"}}, "read", cura.VerdictWarning},
		{"one missing type", sandbox.Faults{MissingTypes: []string{"Consent"}}, "types", cura.VerdictWarning},
	} {
		require.NoError(t, r.ehr.SetFaults(c.faults), c.name)
		out, errs, code := r.starter("test", "main", "--output", "json")
		var report cura.EndpointReport
		require.NoError(t, json.Unmarshal([]byte(out), &report), "%s: %s", c.name, errs)
		found := false
		for _, check := range report.Checks {
			if check.Verdict != cura.VerdictOK {
				require.NotEmpty(t, check.Fix, "%s: %+v", c.name, check)
				require.NotEmpty(t, check.Seen, "%s: %+v", c.name, check)
			}
			found = found || (check.Name == c.check && check.Verdict == c.verdict)
		}
		require.True(t, found, "%s: %+v", c.name, report)
		require.Equal(t, c.verdict == cura.VerdictFailed, code == 1, "%s: exit code %d", c.name, code)
		for _, secret := range append(personal, r.ehr.ClientSecret()) {
			require.NotContains(t, out+errs, secret, c.name)
		}
	}
	require.NoError(t, r.ehr.SetFaults(sandbox.Faults{}))
	r.ok("test", "main")
	_, _, code := r.starter("attention")
	require.Zero(t, code, "the types that answer again are on again")

	r.write("wrong", "not the secret")
	r.ok("connection", "edit", "main", "--secret-file", filepath.Join(r.dir, "wrong"))
	out, _, code := r.starter("test", "main")
	require.Equal(t, 1, code)
	require.Contains(t, out, "invalid_client")
}

func TestAnEmptyServerWaitsForAPerson(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Patients: 1})
	for _, typ := range []string{"AllergyIntolerance", "MedicationRequest", "MedicationStatement", "Observation", "Encounter", "Consent", "Patient"} {
		for _, raw := range r.resources(typ) {
			require.NoError(t, r.ehr.Delete(typ, idOf(t, raw)))
		}
	}
	r.worker("")
	out, code := r.onboard()
	require.Equal(t, 3, code, out)
	require.Contains(t, out, "serves no patients")
}
