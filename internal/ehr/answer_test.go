package ehr_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func outcome(severity, code string, expression ...string) string {
	quoted := make([]string, len(expression))
	for i, e := range expression {
		quoted[i] = fmt.Sprintf("%q", e)
	}
	return fmt.Sprintf(`{"resourceType":"OperationOutcome","issue":[{"severity":%q,"code":%q,"expression":[%s]}]}`,
		severity, code, strings.Join(quoted, ","))
}

// TestAnswers is the table of DOMAIN §5: what each answer to a search and to a read means.
func TestAnswers(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		status       int
		body         string
		header       []string
		search, read fault.Kind
	}{
		"400":                      {400, "", nil, fault.Config, fault.Data},
		"400, forbidden parameter": {400, outcome("error", "forbidden"), nil, fault.Config, fault.Data},
		"400, not supported":       {400, outcome("error", "not-supported"), nil, fault.Unsupported, fault.Unsupported},
		"400, throttled":           {400, outcome("error", "throttled"), nil, fault.Throttled, fault.Throttled},
		"400, lock":                {400, outcome("error", "lock-error"), nil, fault.Transient, fault.Transient},
		"400, too costly":          {400, outcome("error", "too-costly"), nil, fault.Protocol, fault.Protocol},
		"422":                      {422, outcome("error", "business-rule"), nil, fault.Config, fault.Data},
		"401":                      {401, outcome("error", "login"), nil, fault.Auth, fault.Auth},
		"403":                      {403, outcome("error", "forbidden"), nil, fault.Scope, fault.Scope},
		"403, empty as at Epic":    {403, "", nil, fault.Scope, fault.Scope},
		"404":                      {404, "", nil, fault.Unsupported, fault.NotFound},
		"410":                      {410, outcome("error", "deleted"), nil, fault.Unsupported, fault.NotFound},
		"405":                      {405, "", nil, fault.Unsupported, fault.Unsupported},
		"501":                      {501, "", nil, fault.Unsupported, fault.Unsupported},
		"406":                      {406, "", nil, fault.Config, fault.Config},
		"415":                      {415, "", nil, fault.Config, fault.Config},
		"408":                      {408, "", nil, fault.Transient, fault.Transient},
		"413":                      {413, "", nil, fault.Protocol, fault.Protocol},
		"418":                      {418, "", nil, fault.Protocol, fault.Protocol},
		"429":                      {429, "", nil, fault.Throttled, fault.Throttled},
		"500":                      {500, outcome("fatal", "exception"), nil, fault.Transient, fault.Transient},
		"500, HTML":                {500, "<html>stack trace</html>", nil, fault.Transient, fault.Transient},
		"500, not supported":       {500, outcome("error", "not-supported"), nil, fault.Unsupported, fault.Unsupported},
		"502":                      {502, "", nil, fault.Transient, fault.Transient},
		"503":                      {503, "", nil, fault.Transient, fault.Transient},
		"503, with a time":         {503, "", []string{"Retry-After", "3"}, fault.Throttled, fault.Throttled},
		"504":                      {504, "", nil, fault.Transient, fault.Transient},
		"204":                      {204, "", nil, fault.Protocol, fault.Protocol},
		"302":                      {302, "", []string{"Location", "https://elsewhere.example"}, fault.Protocol, fault.Protocol},
		"304":                      {304, "", nil, fault.Protocol, fault.Protocol},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			c := h.client(t)
			h.on("/fhir/Patient", text(test.status, test.body, test.header...))
			h.on("/fhir/Patient/p1", text(test.status, test.body, test.header...))
			_, searchErr := c.Search(t.Context(), ehr.Query{Type: cura.Patient})
			_, readErr := c.Read(t.Context(), cura.Patient, "p1")
			for _, f := range []fault.Error{requireFault(t, searchErr, test.search), requireFault(t, readErr, test.read)} {
				require.Contains(t, f.Detail, fmt.Sprintf("the server answered %d", test.status))
				require.Regexp(t, "request [0-9a-f]{16}$", f.Detail)
				if f.Kind != fault.Transient && f.Kind != fault.NotFound {
					require.NotEmpty(t, f.Fix)
				}
			}
			if test.status == 413 {
				require.ErrorIs(t, searchErr, ehr.ErrPageTooLarge)
			}
		})
	}
}

func TestAnswerTellsCodesAndPaths(t *testing.T) {
	t.Parallel()
	h := newHospital(t)
	h.on("/fhir/Patient/p1", text(422, `{"resourceType":"OperationOutcome","issue":[
		{"severity":"error","code":"required","expression":["Patient.name[0].family","Patient.birthDate"]},
		{"severity":"warning","code":"code-invalid","expression":["Patient.gender"]}]}`))
	_, err := h.client(t).Read(t.Context(), cura.Patient, "p1")
	f := requireFault(t, err, fault.Data)
	require.Contains(t, f.Detail, "issue required (error) at Patient.name[0].family, Patient.birthDate; issue code-invalid (warning) at Patient.gender")
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	const date = "Mon, 23 Nov 2026 16:00:00 GMT" // 1795449600
	cases := map[string]struct {
		value  string
		want   time.Duration
		absurd bool
	}{
		"absent":            {"", 0, false},
		"seconds":           {"120", 2 * time.Minute, false},
		"blanks":            {" 5 ", 5 * time.Second, false},
		"zero":              {"0", time.Second, false},
		"half an hour":      {"1800", 30 * time.Minute, false},
		"negative":          {"-5", time.Second, true},
		"five hours":        {"18000", 30 * time.Minute, true},
		"more than a int32": {"99999999999999999999", 30 * time.Minute, true},
		"beyond a float":    {strings.Repeat("9", 400), 30 * time.Minute, true},
		"epoch":             {"1795449690", 90 * time.Second, true},
		"epoch, past":       {"1700000000", time.Second, true},
		"epoch, millis":     {"1795449690500", 90*time.Second + 500*time.Millisecond, true},
		"date":              {"Mon, 23 Nov 2026 16:01:30 GMT", 90 * time.Second, false},
		"date, past":        {"Mon, 23 Nov 2026 15:59:00 GMT", time.Second, false},
		"date, long past":   {"Mon, 23 Nov 2020 15:00:00 GMT", time.Second, true},
		"date, far":         {"Tue, 24 Nov 2026 16:00:00 GMT", 30 * time.Minute, true},
		"date, RFC 850":     {"Monday, 23-Nov-26 16:00:10 GMT", 10 * time.Second, false},
		"date, ISO 8601":    {"2026-11-23T16:01:30Z", 0, true},
		"words":             {"soon, Garcia", 0, true},
		"a unit":            {"30s", 0, true},
		"no number":         {"NaN", 0, true},
		"fraction":          {"1.5", 1500 * time.Millisecond, true},
		"small fraction":    {"0.01", time.Second, true},
	}
	for name, test := range cases {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				t.Parallel()
				h := newHospital(t)
				var pace paceLog
				c := h.client(t, func(cfg *ehr.Config) { cfg.Pace = &pace })
				h.on("/fhir/Patient", text(status, "", "Retry-After", test.value, "Date", date))
				kind := fault.Throttled
				if status == http.StatusServiceUnavailable && test.want == 0 {
					kind = fault.Transient
				}
				f := requireFault(t, search(t, c), kind)
				require.Equal(t, test.want, f.RetryAfter)
				require.Equal(t, test.absurd, strings.Contains(f.Detail, "it asked for an absurd time"), f.Detail)
				require.NotContains(t, f.Detail, "Garcia")
				require.Equal(t, ehr.Outcome{Status: status, RetryAfter: test.want, Absurd: test.absurd}, pace.last())
			})
		}
	}
}

// TestRefusedAndGone is what a pull asks of an error besides its kind.
func TestRefusedAndGone(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		status        int
		body          string
		refused, gone bool
	}{
		"400":                         {400, "", true, false},
		"400, as athenahealth does":   {400, outcome("error", "forbidden"), true, false},
		"422":                         {422, outcome("error", "business-rule"), true, false},
		"405":                         {405, "", true, false},
		"501":                         {501, "", true, false},
		"500, not supported":          {500, outcome("error", "not-supported"), true, false},
		"200, not supported":          {200, outcome("error", "not-supported"), true, false},
		"400, lock":                   {400, outcome("error", "lock-error"), false, false},
		"400, throttled":              {400, outcome("error", "throttled"), false, false},
		"400, too costly":             {400, outcome("error", "too-costly"), false, false},
		"403":                         {403, outcome("error", "not-supported"), false, false},
		"404":                         {404, "", false, false},
		"404, deleted":                {404, outcome("error", "deleted"), false, true},
		"410":                         {410, "", false, true},
		"500":                         {500, "", false, false},
		"415, which no search causes": {415, "", false, false},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			h.on("/fhir/Observation", text(test.status, test.body))
			h.on("/fhir/Observation/o1", text(test.status, test.body))
			c := h.client(t)
			_, err := c.Search(t.Context(), ehr.Query{Type: cura.Observation})
			require.Error(t, err)
			require.Equal(t, test.refused, errors.Is(err, ehr.ErrRefused), err)
			require.NotErrorIs(t, err, ehr.ErrGone, "a search finds nothing gone")
			_, err = c.ReadPage(t.Context(), cura.Observation, "o1")
			require.Error(t, err)
			require.Equal(t, test.gone, errors.Is(err, ehr.ErrGone), err)
			require.NotErrorIs(t, err, ehr.ErrRefused, "a read has no parameters")
		})
	}
}

// TestErrorsHoldNoPHI puts names, ids, tokens and secrets wherever a server can put text, and looks for them in every
// error. Each case breaks one step of a search.
func TestErrorsHoldNoPHI(t *testing.T) {
	t.Parallel()
	ugly := []string{"Garcia", "MRN-12345", "1961-02-03", "token-1", "s3cret", "diagnostics", "p-4711", "stolen"}
	const garcia = `Garcia MRN-12345 born 1961-02-03, token-1, ` + secret
	issue := `{"resourceType":"OperationOutcome","text":{"div":"` + garcia + `"},"issue":[{"severity":"` + garcia + `","code":"` + garcia + `",
		"diagnostics":"` + garcia + `","details":{"text":"` + garcia + `","coding":[{"code":"Garcia"}]},
		"location":["Patient.name.where(family='Garcia')"],
		"expression":["Patient.name.where(family='Garcia')","Garcia","Patient","Garcia.name","Patient.MRN-12345","Patient.Garcia"]},
		{"severity":"error","code":"required","diagnostics":"` + garcia + `","expression":["Patient.name.where(family = \"Garcia\")"]}]}`
	cases := map[string]func(h *hospital, cfg *ehr.Config, q *ehr.Query){
		"next link elsewhere": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", text(200, searchset("", link("next", "https://garcia.example/Garcia?mrn=MRN-12345"))))
		},
		"next link, broken": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", text(200, searchset("", link("next", "https://%zz/Garcia?mrn=MRN-12345"))))
		},
		"endless loop": func(h *hospital, cfg *ehr.Config, _ *ehr.Query) {
			cfg.MaxPages = 1
			h.on("/fhir/Patient", text(200, searchset("", link("next", "?name=Garcia"))))
		},
		"stored cursor": func(_ *hospital, _ *ehr.Config, q *ehr.Query) { q.Next = "1 x https://elsewhere.example/?name=Garcia" },
		"broken cursor": func(_ *hospital, _ *ehr.Config, q *ehr.Query) { q.Next = "Garcia" },
		"HTML": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", text(200, "<html><title>"+garcia+"</title></html>"))
		},
		"broken JSON": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", text(200, `{"resourceType":"Bundle","Garcia":MRN-12345}`))
		},
		"another resource": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", text(200, `{"resourceType":"Garcia","id":"MRN-12345"}`))
		},
		"redirect": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", text(302, garcia, "Location", "https://elsewhere.example/?name=Garcia"))
		},
		"status line of its own": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", text(599, garcia, "X-Request-Id", "Garcia", "WWW-Authenticate", garcia, "Retry-After", garcia))
		},
		"no such host": func(h *hospital, cfg *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", text(500, garcia))
			cfg.BaseURL = "https://ehr.invalid/fhir"
			cfg.TokenURL = h.URL + "/token"
		},
		"connection closed": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/Patient", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		},
		"token, description": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/token", text(400, `{"error":"Garcia","error_description":"`+garcia+`","error_uri":"https://x.example/Garcia"}`))
		},
		"token, known error": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/token", text(401, `{"error":"invalid_client","error_description":"`+garcia+`"}`))
		},
		"token, not JSON": func(h *hospital, _ *ehr.Config, _ *ehr.Query) { h.on("/token", text(200, `{"access_token":"stolen`)) },
		"token, another type": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/token", text(200, `{"access_token":"stolen","token_type":"Garcia"}`))
		},
		"token unreachable": func(_ *hospital, cfg *ehr.Config, _ *ehr.Query) {
			cfg.TokenURL = "https://auth.invalid/token?name=Garcia"
		},
		"discovery elsewhere": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/.well-known/smart-configuration", text(200, `{"token_endpoint":"https://garcia.example/Garcia?mrn=MRN-12345"}`))
		},
		"discovery with a user": func(h *hospital, _ *ehr.Config, _ *ehr.Query) {
			h.on("/fhir/.well-known/smart-configuration", text(200, `{"token_endpoint":"https://Garcia:MRN-12345@elsewhere.example"}`))
		},
	}
	for _, status := range []int{400, 401, 403, 404, 405, 406, 410, 413, 422, 429, 500, 503} {
		cases[fmt.Sprint("outcome ", status)] = func(h *hospital, _ *ehr.Config, _ *ehr.Query) { h.on("/fhir/Patient", text(status, issue)) }
	}
	cases["outcome as 200"] = func(h *hospital, _ *ehr.Config, _ *ehr.Query) { h.on("/fhir/Patient", text(200, issue)) }

	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t)
			cfg, q := h.config(), ehr.Query{Type: cura.Patient, Params: url.Values{"identifier": {"MRN-12345"}, "name": {"Garcia"}, "_id": {"p-4711"}}}
			prepare(h, &cfg, &q)
			_, err := newClient(t, cfg).Search(t.Context(), q)
			var f *fault.Error
			require.ErrorAs(t, err, &f)
			require.NotEqual(t, fault.Unknown, f.Kind)
			report := ehr.Test(t.Context(), cfg, ehr.TestOptions{Types: []cura.ResourceType{cura.Patient}})
			shown := strings.ToLower(err.Error() + fault.Public(err) + fmt.Sprint(report))
			for _, word := range ugly {
				require.NotContains(t, shown, strings.ToLower(word))
			}
		})
	}
}
