package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/store"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// as runs a command line as somebody.
func (d desk) as(t *testing.T, who string, args ...string) typedLine {
	t.Helper()
	return starter(t, append(args, "--database-url", d.db.URL, "--key-file", d.keyFile, "--as", who)...)
}

func TestOperatorsAreNamedByAdmins(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.does(t, "org", "add", "st-mary")
	require.Contains(t, d.does(t, "org", "operators", "list", "st-mary"), "so anybody may act")
	first := d.as(t, "kim", "org", "operators", "add", "st-mary", "kim", "--role", "consent_officer")
	require.Equal(t, exitDone, first.code, first.err)
	require.Contains(t, first.err, "has no admin, so anybody may change its operators")
	require.Equal(t, exitDone, d.as(t, "kim", "org", "operators", "add", "st-mary", "ada", "--role", "admin").code)

	refused := d.as(t, "kim", "org", "operators", "add", "st-mary", "kim", "--role", "admin")
	require.Equal(t, exitFailed, refused.code)
	require.Contains(t, refused.err, "kim is consent_officer in org st-mary; this takes one of: admin")
	require.Equal(t, exitFailed, d.as(t, "eve", "org", "operators", "remove", "st-mary", "ada").code)
	require.Equal(t, exitDone, d.as(t, "ada", "org", "operators", "add", "st-mary", "kim", "--role", "ops").code, "another role")

	var operators []store.Operator
	d.reads(t, &operators, "org", "operators", "list", "st-mary")
	require.Equal(t, []string{"ada admin", "kim ops"}, []string{operators[0].Name + " " + string(operators[0].Role), operators[1].Name + " " + string(operators[1].Role)})
	require.Equal(t, exitDone, d.as(t, "ada", "org", "operators", "remove", "st-mary", "kim").code)
	gone := d.as(t, "ada", "org", "operators", "remove", "st-mary", "kim")
	require.Equal(t, exitFailed, gone.code)
	require.Contains(t, gone.err, "no operator of that name")
	require.Equal(t, []string{
		"asserted:kim success", "asserted:kim success", "asserted:kim denied", "asserted:eve denied", "asserted:ada success", "asserted:ada success",
	}, d.audited(t, "policy.changed"))

	for says, args := range map[string][]string{
		"must be one of viewer":      {"add", "st-mary", "kim", "--role", "clinician"},
		"takes two arguments":        {"add", "st-mary"},
		"without blanks around it":   {"remove", "st-mary", " kim"},
		"starter org operators has:": {"grant"},
	} {
		got := d.starter(t, append([]string{"org", "operators"}, args...)...)
		require.Equal(t, exitUsage, got.code, got.err)
		require.Contains(t, got.err, says)
	}
}

// TestWhoMayDoWhat: each role's commands, and that a refusal changes nothing and is recorded.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	id := w.push(t, note("n-1", "phi-p1"))[0]
	for _, role := range store.OperatorRoles() {
		w.does(t, "org", "operators", "add", "st-mary", string(role), "--role", string(role), "--as", "admin")
	}
	grant := []string{"consent", "grant", "phi-p1", "--org", "st-mary"}
	revoke := []string{"consent", "revoke", "phi-p1", "--org", "st-mary"}
	halt, unhalt := []string{"halt", "pushes", "--org", "st-mary"}, []string{"unhalt", "pushes", "--org", "st-mary"}
	for _, tc := range []struct {
		args  []string
		kind  string
		roles []cura.Role
	}{
		{grant, "consent.changed", []cura.Role{cura.RoleConsentOfficer, cura.RoleAdmin}},
		{revoke, "consent.changed", []cura.Role{cura.RoleConsentOfficer, cura.RoleAdmin}},
		{halt, "halt.set", []cura.Role{cura.RoleOps, cura.RoleConsentOfficer, cura.RoleAdmin}},
		{unhalt, "halt.lifted", []cura.Role{cura.RoleOps, cura.RoleAdmin}},
		{[]string{"halt", "pulls", "--all"}, "halt.set", []cura.Role{cura.RoleOps, cura.RoleConsentOfficer, cura.RoleAdmin}},
		{[]string{"push", "cancel", id}, "push.cancelled", []cura.Role{cura.RoleOps, cura.RoleAdmin}},
		{[]string{"push", "retry", id}, "push.queued", []cura.Role{cura.RoleOps, cura.RoleAdmin}},
		{[]string{"push", "retract", id}, "push.queued", []cura.Role{cura.RoleOps, cura.RoleAdmin}},
		{[]string{"push", "resolve", id, "--written"}, "push.settled", []cura.Role{cura.RoleOps, cura.RoleAdmin}},
		{[]string{"push", "add", "main", written(t, note("n-2", "phi-p1"))}, "push.queued", []cura.Role{cura.RoleOps, cura.RoleAdmin}},
		{[]string{"push", "show", id, "--content"}, "push.viewed", store.OperatorRoles()},
		{[]string{"org", "policy", "st-mary", "--part2"}, "policy.changed", []cura.Role{cura.RoleAdmin}},
	} {
		for _, who := range append(store.OperatorRoles(), "stranger") {
			before := len(storetest.Query[string](t, w.db, "SELECT kind FROM audit.records WHERE outcome = 'denied' AND kind = '"+tc.kind+"'"))
			got := w.as(t, string(who), tc.args...)
			after := len(storetest.Query[string](t, w.db, "SELECT kind FROM audit.records WHERE outcome = 'denied' AND kind = '"+tc.kind+"'"))
			allowed := false
			for _, role := range tc.roles {
				allowed = allowed || role == who
			}
			if allowed {
				require.NotContains(t, got.err, "The refusal is recorded", "%s %v", who, tc.args)
				require.Equal(t, before, after, "%s %v", who, tc.args)
				continue
			}
			require.Equal(t, exitFailed, got.code, "%s %v", who, tc.args)
			require.Contains(t, got.err, "The refusal is recorded", "%s %v", who, tc.args)
			require.Equal(t, before+1, after, "%s %v", who, tc.args)
		}
	}
	require.Equal(t, exitDone, w.as(t, "viewer", "consent", "show", "phi-p1").code, "codes and times are for everybody")
}

func TestAnOrgWithoutOperatorsLetsAnybodyActAndSaysSo(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	got := w.starter(t, "consent", "grant", "phi-p1", "--org", "st-mary")
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.err, "starter org operators add st-mary NAME --role admin")
	require.Equal(t, []string{"admin"}, storetest.Query[string](t, w.db, "SELECT actor_role FROM cura.consent_log"))
}

func TestOrgPolicy(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.does(t, "org", "add", "st-mary")
	var p cura.OrgPolicy
	d.reads(t, &p, "org", "policy", "st-mary")
	require.Equal(t, cura.DefaultOrgPolicy(), p)
	require.Empty(t, d.audited(t, "policy.changed"))
	d.does(t, "org", "policy", "st-mary", "--part2=true", "--announce-consent=false", "--authors", "note=clinician,coder; procedure=")
	d.reads(t, &p, "org", "policy", "st-mary")
	require.True(t, p.Part2)
	require.False(t, p.AnnounceConsent)
	require.Equal(t, []cura.Role{cura.RoleClinician, cura.RoleCoder}, p.Authors[cura.Note])
	require.Empty(t, p.Authors[cura.Procedure])
	require.Equal(t, []cura.Role{cura.RoleClinician, cura.RoleCoder}, p.Authors[cura.Diagnosis], "what isn't named stays")
	require.Contains(t, d.does(t, "org", "policy", "st-mary"), "May author a procedure: nobody")
	for says, authors := range map[string]string{"the roles are clinician": "note=janitor", "with the kinds note": "letter=clinician"} {
		got := d.starter(t, "org", "policy", "st-mary", "--authors", authors)
		require.Equal(t, exitUsage, got.code)
		require.Contains(t, got.err, says)
	}
}

func TestWhatAConnectionDelivers(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.addMain(t, "--types", "Patient", "--deliver", "note=fhir,procedure=manual", "--pull-consent", "opt-out")
	conn := d.settings(t)
	require.Equal(t, map[cura.ArtefactKind]cura.Route{cura.Note: cura.RouteFHIR, cura.Procedure: cura.RouteManual}, conn.Deliveries)
	require.Equal(t, cura.PullConsentOptOut, conn.PullConsent)
	require.Equal(t, []string{"system/Patient.rs", "system/DocumentReference.crus"}, conn.Scopes, "the least set, with what is written")
	text := d.does(t, "connection", "show", "main")
	require.Contains(t, text, "Delivers    note by fhir, procedure by manual")
	require.Contains(t, text, "that the patient doesn't deny (opt-out); 0 patients")

	l, err := d.db.FindConnection(t.Context(), "main")
	require.NoError(t, err)
	require.NoError(t, d.db.InOrg(t.Context(), l.Org, func(tx *store.Tx) error {
		return tx.PutEndpointTest(t.Context(), l.Connection, cura.EndpointReport{Deliveries: []cura.DeliveryCheck{
			{Kind: cura.Note, Resource: "DocumentReference", Why: "the token has no scope for it.", Fix: "Have it granted"},
		}}, "test")
	}))
	require.Contains(t, d.does(t, "connection", "show", "main"), "the token has no scope for it. Have it granted")

	got := d.starter(t, "connection", "edit", "main", "--deliver", "note=off", "--deliver", "procedure=fhir", "--profile", "epic")
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.err, "takes no procedure by FHIR")
	conn = d.settings(t)
	require.Equal(t, map[cura.ArtefactKind]cura.Route{cura.Procedure: cura.RouteFHIR}, conn.Deliveries)
	require.Equal(t, []string{"{}"}, storetest.Query[string](t, d.db, "SELECT deliveries::text FROM sync.connections WHERE shadow_of IS NOT NULL"), "nothing is written through a shadow")
	for says, args := range map[string][]string{
		"comes with the HL7 v2 bridge":       {"--deliver", "note=hl7v2"},
		"must be fhir, manual or off":        {"--deliver", "note=fax"},
		"the kinds are note":                 {"--deliver", "letter=fhir"},
		"takes KIND=ROUTE":                   {"--deliver", "note"},
		"it must be none, opt-out or opt-in": {"--pull-consent", "always"},
	} {
		got := d.starter(t, append([]string{"connection", "edit", "main"}, args...)...)
		require.Equal(t, exitUsage, got.code, got.err)
		require.Contains(t, got.err, says)
	}
	require.Equal(t, conn.Deliveries, d.settings(t).Deliveries)
}
