package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/sandbox"
)

func sandboxCommand() *cli.Command {
	return &cli.Command{
		Name:  "sandbox",
		Usage: "run an EHR to rehearse on",
		Description: "A FHIR R4 server with SMART backend authorization, over TLS under its own certificate authority, with generated patients\n" +
			"or the FHIR resources of a folder. It runs until Ctrl-C. Its knobs make it as difficult as real EHRs are; they can be\n" +
			"turned while it runs, with: starter sandbox faults\n\n" +
			example("starter sandbox --state ./sandbox", "starter sandbox --data ./fhir --throttle-every 10 --vendor epic"),
		Flags: append([]cli.Flag{
			&cli.StringFlag{
				Name: "vendor", Usage: "have the manners of this `VENDOR`: " + strings.Join(sandbox.Vendors(), ", "),
				DefaultText: "a general FHIR store",
			},
			&cli.StringFlag{Name: "addr", Value: "127.0.0.1:9443", Usage: "the `HOST:PORT` to listen on"},
			&cli.StringFlag{Name: "control-addr", Value: "127.0.0.1:9444", Usage: "the loopback `HOST:PORT` of the control endpoint"},
			&cli.StringFlag{Name: "data", Usage: "serve the FHIR resources in this `FOLDER`, instead of generated patients"},
			&cli.StringFlag{Name: "state", Usage: "keep changes, certificates and the client secret in this `FOLDER`", DefaultText: "nothing is kept"},
			&cli.IntFlag{Name: "patients", Value: 40, Usage: "how many patients are generated"},
			&cli.IntFlag{Name: "resources", Usage: "add laboratory results until there are `N` resources"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "what the generated data grows from"},
			&cli.BoolFlag{Name: "insecure", Usage: "serve plain http, on a loopback address"},
		}, knobFlags()...),
		Action:      runSandbox,
		Subcommands: []*cli.Command{faultsCommand()},
	}
}

// knobFlags are the knobs that are often turned; --fault takes them all.
func knobFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "fault", Usage: "knobs as `JSON`, such as '{\"malformed\":{\"Observation\":0.01}}'; repeated as needed"},
		&cli.DurationFlag{Name: "latency", Usage: "delay every answer by so `LONG`"},
		&cli.IntFlag{Name: "throttle-every", Usage: "answer every `N`th request with 429 and Retry-After"},
		&cli.Float64Flag{Name: "error-rate", Usage: "the `SHARE` of requests that are answered with 500"},
		&cli.DurationFlag{Name: "token-lifetime", Usage: "how long an access token lives", DefaultText: "the vendor's own, or 5m"},
		&cli.StringSliceFlag{Name: "refuse-type", Usage: "answer requests for this `TYPE` with 403; repeated as needed"},
	}
}

// knobs reads the knobs from the flags.
func knobs(c *cli.Context) (sandbox.Faults, error) {
	var f sandbox.Faults
	for _, text := range c.StringSlice("fault") {
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&f); err != nil {
			return f, usagef("--fault isn't a JSON object of knobs: %s", err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return f, usagef("--fault holds more than one JSON object; repeat the flag")
		}
	}
	if c.IsSet("latency") {
		f.LatencyMS = int(c.Duration("latency").Milliseconds())
	}
	if c.IsSet("throttle-every") {
		f.Throttle.EveryN = c.Int("throttle-every")
		if f.Throttle.RetryAfterSeconds == 0 {
			f.Throttle.RetryAfterSeconds = 1
		}
	}
	if c.IsSet("error-rate") {
		f.ErrorRate = c.Float64("error-rate")
	}
	if c.IsSet("token-lifetime") {
		f.TokenLifetimeSeconds = int(c.Duration("token-lifetime") / time.Second)
	}
	f.RefuseTypes = append(f.RefuseTypes, listed(c.StringSlice("refuse-type"))...)
	if err := f.Validate(); err != nil {
		return f, usagef("%s", err)
	}
	return f, nil
}

func runSandbox(c *cli.Context) (err error) {
	if err := noWords(c); err != nil {
		return err
	}
	faults, err := knobs(c)
	if err != nil {
		return err
	}
	switch {
	case c.Int("patients") < 1:
		return usagef("--patients is %d; it must be at least 1", c.Int("patients"))
	case c.Int("resources") < 0:
		return usagef("--resources is %d; it must not be negative", c.Int("resources"))
	}
	if vendor := c.String("vendor"); vendor != "" && !slices.Contains(sandbox.Vendors(), vendor) {
		return usagef("--vendor is %q; it must be one of %s", vendor, strings.Join(sandbox.Vendors(), ", "))
	}
	server, err := sandbox.Start(c.Context, sandbox.Config{
		Vendor: c.String("vendor"), Addr: c.String("addr"), ControlAddr: c.String("control-addr"), DataDir: c.String("data"), StateDir: c.String("state"),
		Seed: c.Uint64("seed"), Patients: c.Int("patients"), Resources: c.Int("resources"), Insecure: c.Bool("insecure"), Faults: faults,
	})
	if err != nil {
		return fmt.Errorf("starting the sandbox EHR: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	folder, remove, err := sandboxFolder(c.String("state"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	view, err := describeSandbox(server, folder)
	if err != nil {
		return err
	}
	if err := view.print(c); err != nil {
		return err
	}
	<-c.Done()
	hint(c, "Stopping.")
	return nil
}

// sandboxFolder is where the CA and the secret are put: the state folder, or one that goes with the sandbox.
func sandboxFolder(state string) (folder string, remove func() error, err error) {
	if state != "" {
		folder, err = filepath.Abs(state)
		return folder, func() error { return nil }, err
	}
	folder, err = os.MkdirTemp("", "cura-sandbox-")
	return folder, func() error { return os.RemoveAll(folder) }, err
}

// sandboxView is what a connection to the sandbox needs.
type sandboxView struct {
	BaseURL    string         `json:"base_url"`
	TokenURL   string         `json:"token_url"`
	ControlURL string         `json:"control_url"`
	CAFile     string         `json:"ca_file,omitempty"`
	ClientID   string         `json:"client_id"`
	SecretFile string         `json:"secret_file"`
	MRNSystem  string         `json:"mrn_system,omitempty"`
	Counts     map[string]int `json:"counts"`
	Problems   []string       `json:"problems,omitempty"`
}

// describeSandbox writes the CA and the secret to files, for `starter connection add`.
func describeSandbox(server *sandbox.Server, folder string) (sandboxView, error) {
	v := sandboxView{
		BaseURL: server.BaseURL(), TokenURL: server.TokenURL(), ControlURL: server.ControlURL(), ClientID: server.ClientID(),
		SecretFile: filepath.Join(folder, "client-secret"), MRNSystem: server.MRNSystem(), Counts: server.Counts(), Problems: server.Problems(),
	}
	if err := os.WriteFile(v.SecretFile, []byte(server.ClientSecret()+"\n"), 0o600); err != nil {
		return v, fmt.Errorf("keeping the sandbox's client secret: %w", err)
	}
	if strings.HasPrefix(v.BaseURL, "https:") {
		v.CAFile = filepath.Join(folder, "ca.pem")
		if err := os.WriteFile(v.CAFile, server.CAPEM(), 0o600); err != nil {
			return v, fmt.Errorf("keeping the sandbox's CA: %w", err)
		}
	}
	return v, nil
}

func (v sandboxView) print(c *cli.Context) error {
	total := 0
	for _, n := range v.Counts {
		total += n
	}
	match := "mrn:SYSTEM"
	if v.MRNSystem != "" {
		match = "mrn:" + v.MRNSystem
	}
	lines := []string{
		fmt.Sprintf("The sandbox EHR serves %d resources. Ctrl-C stops it.", total),
		"  base URL  " + v.BaseURL,
		"  control   " + v.ControlURL,
	}
	trust := " --insecure-loopback"
	if v.CAFile != "" {
		lines = append(lines, "  CA        "+v.CAFile)
		trust = " --ca-file " + v.CAFile
	}
	lines = append(lines, "  client    "+v.ClientID, "  secret    in "+v.SecretFile)
	for _, p := range v.Problems {
		lines = append(lines, "  note: "+p)
	}
	lines = append(lines, "", "Connect to it with:",
		"  starter connection add --org ORG --name NAME --base-url "+v.BaseURL+" --client-id "+v.ClientID+" \\",
		"     --secret-file "+v.SecretFile+trust+" --match "+match)
	return printOne(c, v, lines...)
}
