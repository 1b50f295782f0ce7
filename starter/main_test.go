package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/secrets"
	"github.com/cura-health/ehr-sync/internal/store/storetest"
)

// cluster is the PostgreSQL of this package's tests.
var cluster *storetest.Cluster

func TestMain(m *testing.M) {
	os.Exit(storetest.Main(m, func(c *storetest.Cluster) { cluster = c }))
}

// urfave keeps its help flag and its help command in package variables, which every run writes to.
var oneAtATime sync.Mutex

// typedLine is a command line that was run, and what it came to.
type typedLine struct {
	code     int
	out, err string
}

// starter runs a command line in this process.
func starter(t *testing.T, args ...string) typedLine {
	t.Helper()
	return starterWith(t, "", args...)
}

// starterWith is starter with something on standard input.
func starterWith(t *testing.T, stdin string, args ...string) typedLine {
	t.Helper()
	oneAtATime.Lock()
	defer oneAtATime.Unlock()
	var out, errs bytes.Buffer
	code := run(t.Context(), append([]string{"starter"}, args...), strings.NewReader(stdin), &out, &errs)
	return typedLine{code, out.String(), errs.String()}
}

// desk is a database and a key file, as a person at a terminal has them.
type desk struct {
	db      *storetest.DB
	keyFile string
}

func newDesk(t *testing.T) desk {
	t.Helper()
	d := desk{db: cluster.New(t), keyFile: filepath.Join(t.TempDir(), "key")}
	require.NoError(t, secrets.GenerateKeyFile(d.keyFile))
	return d
}

// starter runs a command line on the desk's database.
func (d desk) starter(t *testing.T, args ...string) typedLine {
	t.Helper()
	return starter(t, append(args, "--database-url", d.db.URL, "--key-file", d.keyFile, "--as", "pat")...)
}

// does is starter for a command line that must succeed; it gives what was printed.
func (d desk) does(t *testing.T, args ...string) string {
	t.Helper()
	got := d.starter(t, args...)
	require.Equal(t, exitDone, got.code, got.err)
	return got.out
}

const theSecret = "s3cr3t-of-st-mary"

// addMain adds org st-mary and its connection main.
func (d desk) addMain(t *testing.T, more ...string) {
	t.Helper()
	d.does(t, "org", "add", "st-mary")
	d.does(t, append(mainSettings(t), more...)...)
}

// mainSettings is a command line that adds the connection st-mary/main.
func mainSettings(t *testing.T) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(theSecret+"\n"), 0o600))
	return []string{
		"connection", "add", "--org", "st-mary", "--name", "main", "--base-url", "https://ehr.st-mary.example/fhir/R4/",
		"--client-id", "cura", "--secret-file", file, "--match", "mrn:urn:oid:1.2.36.146",
	}
}

// nowhere is a database that doesn't answer.
const nowhere = "postgres://cura_worker@127.0.0.1:1/cura?connect_timeout=1"

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	secret := file("secret", "x")
	add := func(more ...string) []string {
		return append([]string{
			"connection", "add", "--org", "a", "--name", "b", "--base-url", "https://ehr.example/fhir", "--client-id", "c",
			"--secret-file", secret, "--match", "mrn:urn:oid:1.2",
		}, more...)
	}
	tests := map[string]struct {
		args []string
		says string
	}{
		"unknown command":         {[]string{"onbord", "main"}, `no command "onbord"`},
		"unknown sub-command":     {[]string{"connection", "ad"}, "starter connection has: add, list"},
		"unknown flag":            {[]string{"onboard", "main", "--wach"}, "flag provided but not defined: -wach"},
		"no argument":             {[]string{"onboard"}, "takes one argument, the connection"},
		"two arguments":           {[]string{"test", "a", "b"}, "takes one argument, the connection"},
		"argument of none":        {[]string{"attention", "a"}, "takes no arguments"},
		"output":                  {[]string{"org", "list", "--output", "yaml"}, "must be table or json"},
		"as":                      {[]string{"org", "list", "--as", "a\nb"}, "on one line"},
		"org name":                {[]string{"org", "add", "St_Mary"}, "lower-case letters, digits and hyphens"},
		"connection name":         {add("--name", "Main"), "1 to 40 lower-case letters"},
		"missing setting":         {[]string{"connection", "add", "--org", "a", "--name", "b"}, "needs --base-url"},
		"missing secret":          {add("--secret-file", ""), "the client secret is missing"},
		"plain http":              {add("--base-url", "http://ehr.example/fhir"), "plain http"},
		"http without consent":    {add("--base-url", "http://127.0.0.1:1/fhir"), "--insecure-loopback"},
		"no url":                  {add("--base-url", "ehr.example"), "isn't an absolute URL"},
		"token url":               {add("--token-url", "ftp://ehr.example"), "neither https nor http"},
		"match kind":              {add("--match", "ssn:urn:x"), "isn't one of mrn, national-id, cura-id"},
		"match system":            {add("--match", "mrn:hospital"), "isn't a URI"},
		"unsupported type":        {add("--types", "Patient,Condition"), `"Condition"; it pulls Patient, AllergyIntolerance`},
		"no patient":              {add("--types", "Observation"), "lacks Patient"},
		"no type":                 {add("--types", ","), "names no resource type"},
		"profile":                 {add("--profile", "epik"), `"epik" isn't one of athena, epic, generic`},
		"profile twice":           {add("--profile", "epic", "--profile-file", secret), "give one of the two"},
		"broken profile file":     {add("--profile-file", file("epic2.yaml", "name: epic2\ntypes:\n  Observation:\n    strategy: rooster\n")), "epic2.yaml:4: types.Observation.strategy"},
		"profile file missing":    {add("--profile-file", filepath.Join(dir, "none")), "no such file"},
		"profile without param":   {add("--profile", "athena"), "--profile-param practice=VALUE"},
		"param of no profile":     {add("--profile-param", "practice=1"), "has no parameter"},
		"param without value":     {add("--profile-param", "practice"), "takes NAME=VALUE"},
		"strategy of no type":     {add("--strategy", "Condition=roster"), "isn't one of the connection's types"},
		"strategy unknown":        {add("--strategy", "Observation=rooster"), "must be one of system, roster, snapshot"},
		"strategy without type":   {add("--strategy", "roster"), "takes TYPE=STRATEGY"},
		"roster source":           {add("--roster-source", "adt"), "must be enrolment or list"},
		"group as a setting":      {add("--roster-source", "group"), "starter roster group"},
		"budget":                  {add("--budget", "-1"), "--budget is -1"},
		"alert threshold":         {add("--alert-after", "0"), "must be at least 1"},
		"two scopes in one":       {add("--scope", "system/Patient.rs system/Consent.rs"), "one scope at a time"},
		"CA that isn't there":     {add("--ca-file", filepath.Join(dir, "none")), "no such file"},
		"CA without certificate":  {add("--ca-file", file("empty.pem", "hello")), "holds no PEM certificate"},
		"CA cut short":            {add("--ca-file", file("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB")), "cut short"},
		"edit nothing":            {[]string{"connection", "edit", "main"}, "nothing is to be changed"},
		"pilot of none":           {[]string{"onboard", "main", "--pilot", "0"}, "--pilot is 0"},
		"threshold":               {[]string{"onboard", "main", "--pilot-threshold", "20"}, "must be 0 to 1"},
		"window without a sync":   {[]string{"onboard", "main", "--monitor", "1m"}, "long enough for a sync"},
		"not a duration":          {[]string{"onboard", "main", "--monitor", "72"}, `invalid value "72"`},
		"pilot said twice":        {[]string{"onboard", "main", "--pilot", "3", "--patients", secret}, "give one of the two"},
		"patients file missing":   {[]string{"onboard", "main", "--patients", filepath.Join(dir, "none")}, "no such file"},
		"extend by nothing":       {[]string{"extend", "main"}, "--by 24h"},
		"sync of an unknown type": {[]string{"sync", "main", "--types", "Condition"}, "it pulls Patient"},
		"pilot position":          {[]string{"pilot", "main", "--position", "-1"}, "positions begin at 1"},
		"dead letter id":          {[]string{"dead-letters", "show", "main"}, "isn't the id of a dead letter"},
		"sandbox knob":            {[]string{"sandbox", "--fault", `{"latency":1}`}, `unknown field "latency"`},
		"sandbox rate":            {[]string{"sandbox", "--error-rate", "2"}, "error_rate"},
		"control elsewhere":       {[]string{"sandbox", "faults", "--control", "http://ehr.example:9444"}, "of this host"},
		"knobs both ways":         {[]string{"sandbox", "faults", "--clear", "--set", "{}"}, "give one of the two"},
		"migrate without url":     {[]string{"migrate", "--url", ""}, "needs --url"},
		"shell":                   {[]string{"completion", "fish"}, "there is for bash and zsh"},
		"keygen without file":     {[]string{"keygen"}, "takes one argument, the file"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := starter(t, append(tc.args, "--database-url", nowhere)...)
			require.Equal(t, exitUsage, got.code, got.err)
			require.Contains(t, got.err, tc.says)
			require.Empty(t, got.out)
		})
	}
}

func TestADatabaseThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	got := starter(t, "org", "list", "--database-url", nowhere)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.err, "Check CURA_DATABASE_URL")
	require.Empty(t, got.out)
}

func TestHelpOfEveryCommandShowsAnExample(t *testing.T) {
	t.Parallel()
	var walk func(path []string, commands []*cli.Command)
	walk = func(path []string, commands []*cli.Command) {
		for _, c := range commands {
			path := append(slices.Clip(path), c.Name)
			got := starter(t, append(path, "--help")...)
			require.Equal(t, exitDone, got.code, got.err)
			require.Contains(t, got.out, "Example:\n", path)
			require.Contains(t, got.out, "starter "+strings.Join(path, " "), path)
			require.NotEmpty(t, c.Usage, path)
			walk(path, c.Subcommands)
		}
	}
	walk(nil, newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}).Commands)
	require.Equal(t, starter(t, "connection", "add", "--help").out, starter(t, "help", "connection", "add").out)
}

func TestCompletionScriptsAskTheProgram(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh"} {
		got := starter(t, "completion", shell)
		require.Equal(t, exitDone, got.code, got.err)
		require.Contains(t, got.out, "--generate-bash-completion")
	}
}

// What is suggested depends on the arguments of the process, which are the test's here.
func TestCompletionOfAnUnfinishedFlag(t *testing.T) {
	t.Parallel()
	got := starter(t, "onboard", "--p", "--generate-bash-completion")
	require.Equal(t, exitDone, got.code, got.err)
}

func TestKeygenLeavesAKeyThatIsThere(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	require.Equal(t, exitDone, starter(t, "keygen", file).code)
	again := starter(t, "keygen", file)
	require.Equal(t, exitFailed, again.code)
	require.Contains(t, again.err, "exists already")
}
