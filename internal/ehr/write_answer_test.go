package ehr_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

// TestSendReadsReceipts: what was taken is taken, however little the answer says.
func TestSendReadsReceipts(t *testing.T) {
	t.Parallel()
	whole := `{"resourceType":"DocumentReference","id":"n-17","meta":{"versionId":"2"}}`
	cases := map[string]struct {
		answer      func(h *hospital) http.HandlerFunc
		conditional bool
		want        ehr.Receipt
	}{
		"relative": {func(*hospital) http.HandlerFunc { return text(201, "", "Location", "DocumentReference/n-17") }, false, ehr.Receipt{ID: "n-17", Status: 201}},
		"absolute": {func(h *hospital) http.HandlerFunc {
			return text(201, "", "Location", h.URL+notes+"/n-17/_history/3")
		}, false, ehr.Receipt{ID: "n-17", Version: "3", Status: 201}},
		"from the root": {func(*hospital) http.HandlerFunc { return text(201, "", "Location", notes+"/n-17") }, false, ehr.Receipt{ID: "n-17", Status: 201}},
		"another host": {func(*hospital) http.HandlerFunc {
			return text(201, "", "Location", "https://evil.example"+notes+"/n-17")
		}, false, ehr.Receipt{Status: 201}},
		"another type":     {func(*hospital) http.HandlerFunc { return text(201, "", "Location", "Binary/n-17") }, false, ehr.Receipt{Status: 201}},
		"nothing":          {func(*hospital) http.HandlerFunc { return text(201, "") }, false, ehr.Receipt{Status: 201}},
		"no content":       {func(*hospital) http.HandlerFunc { return text(204, "") }, false, ehr.Receipt{Status: 204}},
		"accepted":         {func(*hospital) http.HandlerFunc { return text(202, "") }, false, ehr.Receipt{Status: 202}},
		"the resource":     {func(*hospital) http.HandlerFunc { return text(201, whole) }, false, ehr.Receipt{ID: "n-17", Version: "2", Status: 201}},
		"another resource": {func(*hospital) http.HandlerFunc { return text(201, `{"resourceType":"Patient","id":"n-17"}`) }, false, ehr.Receipt{Status: 201}},
		"broken JSON":      {func(*hospital) http.HandlerFunc { return text(201, `{"resourceType":"Docu`) }, false, ehr.Receipt{Status: 201}},
		"a page at 201":    {func(*hospital) http.HandlerFunc { return text(201, "<html></html>") }, false, ehr.Receipt{Status: 201}},
		"half a body":      {func(*hospital) http.HandlerFunc { return halfReceipt }, false, ehr.Receipt{Status: 201}},
		"existed": {func(*hospital) http.HandlerFunc {
			return text(200, "", "Location", "DocumentReference/n-17/_history/1", "ETag", `W/"1"`)
		}, true, ehr.Receipt{ID: "n-17", Version: "1", ETag: `W/"1"`, Existed: true, Status: 200}},
		"strange tags": {func(*hospital) http.HandlerFunc {
			return text(201, "", "Location", "DocumentReference/n-17/_history/1", "ETag", `1`)
		}, false, ehr.Receipt{ID: "n-17", Version: "1", Status: 201}},
		"a tag that is no id": {func(*hospital) http.HandlerFunc {
			return text(201, "", "Location", "DocumentReference/n-17", "ETag", `"a/b"`)
		}, false, ehr.Receipt{ID: "n-17", ETag: `"a/b"`, Status: 201}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on(notes, test.answer(h))
			r := inTime()
			if test.conditional {
				r.IfNoneExist = "identifier=x"
			}
			got, err := send(t, h.client(t), r)
			require.NoError(t, err)
			got.At, test.want.Type = time.Time{}, "DocumentReference"
			require.Equal(t, test.want, got)
			require.Len(t, h.asked(notes), 1)
		})
	}
}

func halfReceipt(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte(`{"resourceType":`))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// TestSendClassifies: which answers leave the outcome open (DOMAIN §4, §5).
func TestSendClassifies(t *testing.T) {
	t.Parallel()
	outcome := func(code string) string {
		return `{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"` + code +
			`","diagnostics":"Garcia has no encounter n-17","expression":["DocumentReference.context.encounter[0]","DocumentReference.subject.where(id='n-17')"]}]}`
	}
	type answer struct {
		status int
		body   string
		header []string
	}
	cases := map[string]struct {
		answer answer
		change func(*ehr.Request)
		kind   fault.Kind
		maybe  bool
		seen   string
	}{
		"400":               {answer{400, outcome("required"), nil}, nil, fault.Data, false, "issue required (error) at DocumentReference.context.encounter[0],"},
		"422":               {answer{422, outcome("business-rule"), nil}, nil, fault.Data, false, "issue business-rule (error)"},
		"422, for now":      {answer{422, outcome("lock-error"), nil}, nil, fault.Transient, false, "issue lock-error"},
		"403":               {answer{403, "", nil}, nil, fault.Scope, false, "403"},
		"404":               {answer{404, outcome("not-supported"), nil}, nil, fault.Unsupported, false, "404"},
		"404 of an update":  {answer{404, "", nil}, update, fault.NotFound, false, "404"},
		"410 of an update":  {answer{410, "", nil}, update, fault.NotFound, false, "410"},
		"405":               {answer{405, "", nil}, nil, fault.Unsupported, false, "405"},
		"409":               {answer{409, outcome("duplicate"), nil}, nil, fault.Conflict, false, "409"},
		"409, If-Match":     {answer{409, outcome("conflict"), nil}, update, fault.Conflict, false, "issue conflict"},
		"412, If-Match":     {answer{412, "", nil}, update, fault.Conflict, false, "412"},
		"412, conditional":  {answer{412, outcome("multiple-matches"), nil}, conditional, fault.Conflict, false, "issue multiple-matches"},
		"413":               {answer{413, "", nil}, nil, fault.Data, false, "413"},
		"415":               {answer{415, "", nil}, nil, fault.Config, false, "415"},
		"428":               {answer{428, "", nil}, update, fault.Config, false, "428"},
		"429":               {answer{429, "", []string{"Retry-After", "7"}}, nil, fault.Throttled, false, "429"},
		"503, Retry-After":  {answer{503, "", []string{"Retry-After", "7"}}, nil, fault.Throttled, false, "503"},
		"503":               {answer{503, "", nil}, nil, fault.Transient, true, "503"},
		"500":               {answer{500, outcome("exception"), nil}, nil, fault.Transient, true, "issue exception"},
		"500, throttled":    {answer{500, outcome("throttled"), nil}, nil, fault.Throttled, true, "issue throttled"},
		"501":               {answer{501, "", nil}, nil, fault.Unsupported, true, "501"},
		"502":               {answer{502, "<html>Garcia</html>", nil}, nil, fault.Transient, true, "502"},
		"504":               {answer{504, "", nil}, nil, fault.Transient, true, "504"},
		"408":               {answer{408, "", nil}, nil, fault.Transient, true, "408"},
		"303":               {answer{303, "", []string{"Location", "/fhir/x"}}, nil, fault.Protocol, true, "303"},
		"a sign-on page":    {answer{200, "<html>Garcia</html>", nil}, nil, fault.Protocol, true, "an HTML page"},
		"200, and an error": {answer{200, outcome("processing"), nil}, nil, fault.Data, true, "issue processing (error)"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			for _, path := range []string{notes, notes + "/n-17"} {
				h.on(path, text(test.answer.status, test.answer.body, test.answer.header...))
			}
			r := inTime()
			if test.change != nil {
				test.change(&r)
			}
			before := len(h.asked(""))
			_, err := send(t, h.client(t), r)
			f := requireWriteFault(t, err, test.kind, test.maybe)
			require.Contains(t, f.Detail, test.seen)
			require.Len(t, h.asked(notes), 1-len(r.ID)/4, "one attempt")
			require.Len(t, h.asked(""), before+3, "discovery, the token and the write")
			if len(test.answer.header) > 0 && test.answer.header[0] == "Retry-After" {
				require.Equal(t, 7*time.Second, f.RetryAfter)
			}
			if test.kind != fault.Transient {
				require.NotEmpty(t, f.Fix)
			}
		})
	}
}

func update(r *ehr.Request)      { r.ID, r.IfMatch = "n-17", `W/"1"` }
func conditional(r *ehr.Request) { r.IfNoneExist = "identifier=CURA-1" }
