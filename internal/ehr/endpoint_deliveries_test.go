package ehr_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
)

// writable adds types to a CapabilityStatement that can be written.
func writable(statement string, interactions string, types ...string) string {
	var resources []string
	for _, typ := range types {
		resources = append(resources, fmt.Sprintf(`{"type":%q,"conditionalCreate":true,"interaction":[%s]}`, typ, interactions))
	}
	return strings.Replace(statement, `"resource":[`, `"resource":[`+strings.Join(resources, ",")+",", 1)
}

const createUpdate = `{"code":"create"},{"code":"update"},{"code":"search-type"}`

// TestEndpointDeliveries: each kind is deliverable, or the test says why not and what to do.
func TestEndpointDeliveries(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		profile      string
		types        []string
		interactions string
		scope        string
		kind         cura.ArtefactKind
		want         cura.DeliveryCheck
		fix          string
	}{
		"all of it": {
			"generic",
			[]string{"DocumentReference"},
			createUpdate, "system/DocumentReference.crus", cura.Note,
			cura.DeliveryCheck{
				Resource: "DocumentReference", OK: true, ConditionalCreate: true, Update: true,
				Why: "create of DocumentReference is offered and granted, on condition too; an unknown outcome is looked up by identifier",
			},
			"",
		},
		"version 1's scopes, no update": {
			"oracle",
			[]string{"Procedure"},
			`{"code":"create"},{"code":"search-type"}`, "system/Procedure.write system/Procedure.read", cura.Procedure,
			cura.DeliveryCheck{
				Resource: "Procedure", OK: true,
				Why: "create of Procedure is offered and granted; an unknown outcome is looked up among the patient's Procedures",
			},
			"",
		},
		"no search": {
			"hapi",
			[]string{"Condition"},
			createUpdate, "system/Condition.c", cura.Diagnosis,
			cura.DeliveryCheck{
				Resource: "Condition", OK: true, ConditionalCreate: true,
				Why: "create of Condition is offered and granted, on condition too; an unknown outcome is decided by a person, as long as search of Condition isn't offered and granted (system/Condition.rs)",
			},
			"",
		},
		"held": {
			"epic",
			[]string{"Condition"},
			`{"code":"create"}`, "launch", cura.Diagnosis,
			cura.DeliveryCheck{
				Resource: "Condition", OK: true,
				Why: "create of Condition is offered; whether it is granted shows with the first one, since the token names no SMART scope; it is held at the EHR until somebody signs it off; an unknown outcome is decided by a person",
			},
			"",
		},
		"not listed": {
			"generic", nil, "", "system/*.cruds", cura.Procedure,
			cura.DeliveryCheck{Resource: "Procedure", Why: "the server's metadata doesn't list Procedure"},
			"choose --deliver procedure=manual",
		},
		"not offered": {
			"generic",
			[]string{"Procedure"},
			`{"code":"read"}`, "system/*.cruds", cura.Procedure,
			cura.DeliveryCheck{Resource: "Procedure", Why: "the server's metadata doesn't offer create of Procedure"},
			"choose --deliver procedure=manual",
		},
		"not granted": {
			"generic",
			[]string{"Condition"},
			createUpdate, "system/*.rs", cura.Diagnosis,
			cura.DeliveryCheck{Resource: "Condition", Why: "the scope system/Condition.c wasn't granted"},
			"Ask the hospital to grant system/Condition.write (SMART v2: system/Condition.c)",
		},
		"not taken": {
			"epic",
			[]string{"Procedure"},
			createUpdate, "system/*.cruds", cura.Procedure,
			cura.DeliveryCheck{Why: "Epic takes no procedures by FHIR"},
			"choose --deliver procedure=manual",
		},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			statement := capabilityStatement("4.0.1")
			if len(test.types) > 0 {
				statement = writable(statement, test.interactions, test.types...)
			}
			h.on("/fhir/metadata", text(http.StatusOK, statement))
			h.on("/token", h.giveToken(`"expires_in":300`, `"scope":"`+test.scope+`"`))
			r := h.client(t, withProfile(builtin(t, test.profile))).Test(t.Context(), ehr.TestOptions{
				Types: []cura.ResourceType{cura.Patient}, Deliveries: []cura.ArtefactKind{test.kind},
			})
			require.Len(t, r.Deliveries, 1)
			found := r.Deliveries[0]
			require.Equal(t, found.OK, found.Fix == "")
			require.Contains(t, found.Fix, test.fix)
			verdict := cura.VerdictWarning
			if found.OK {
				verdict = cura.VerdictOK
			}
			requireCheck(t, r, ehr.CheckDelivery, cura.ResourceType(found.Resource), verdict, string(test.kind)+": "+found.Why)
			found.Fix, test.want.Kind = "", test.kind
			require.Equal(t, test.want, found)
			for _, request := range h.asked("") {
				require.True(t, request.Method == http.MethodGet || request.URL.Path == "/token", "nothing is written to find out")
			}
		})
	}
}
