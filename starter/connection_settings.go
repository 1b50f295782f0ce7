package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/ehr"
)

// settingFlags are the settings of a connection, the same for add and edit.
func settingFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "base-url", Usage: "the FHIR base `URL`, such as https://ehr.hospital.example/fhir/R4"},
		&cli.StringFlag{Name: "token-url", Usage: "the OAuth token endpoint's `URL`", DefaultText: "discovered from .well-known/smart-configuration"},
		&cli.StringFlag{Name: "client-id", Usage: "the client `ID` that the hospital has registered for Cura"},
		&cli.StringFlag{Name: "secret-file", Usage: "a `FILE` with the client secret; - reads standard input", DefaultText: "asked for, on a terminal"},
		&cli.StringSliceFlag{Name: "scope", Usage: "a `SCOPE` to ask for, repeated as needed; an empty one asks for none", DefaultText: "read and search for each type, as the profile spells it"},
		&cli.StringFlag{Name: "ca-file", Aliases: []string{"ca"}, Usage: "a PEM `FILE` with the certificates that the EHR's own one is signed by", DefaultText: "the system's"},
		&cli.StringFlag{Name: "match", Usage: "how patients are matched: `mrn:SYSTEM`, national-id:SYSTEM or cura-id:SYSTEM"},
		&cli.StringFlag{Name: "unmatched", Usage: "what becomes of a patient for whom no profile is found: a `new` one, or review by a person", DefaultText: string(cura.UnmatchedNew)},
		&cli.StringSliceFlag{Name: "types", Usage: "the resource types to pull: `A,B`", DefaultText: "all that Cura pulls"},
		&cli.BoolFlag{Name: "insecure-loopback", Usage: "allow plain http to a loopback address, for rehearsals"},
	}, append(profileFlags(), deliveryFlags()...)...)
}

// applySettings puts the flags that were given over the settings of conn, and checks the whole. It sends nothing.
func applySettings(c *cli.Context, conn cura.Connection) (cura.Connection, error) {
	for flag, field := range map[string]*string{
		"base-url": &conn.BaseURL, "token-url": &conn.TokenURL, "client-id": &conn.ClientID,
	} {
		if c.IsSet(flag) {
			*field = strings.TrimSpace(c.String(flag))
		}
	}
	conn.BaseURL = strings.TrimRight(conn.BaseURL, "/")
	if c.IsSet("insecure-loopback") {
		conn.InsecureLoopback = c.Bool("insecure-loopback")
	}
	if conn.ClientID == "" {
		return conn, usagef("--client-id is empty; give the one that the hospital has registered for Cura")
	}
	if c.IsSet("match") {
		match, err := cura.ParseMatchStrategy(c.String("match"))
		if err != nil {
			return conn, usagef("--match: %s", err)
		}
		match.Unmatched = conn.Match.Unmatched
		conn.Match = match
	}
	if c.IsSet("unmatched") {
		policy, err := cura.ParseUnmatched(c.String("unmatched"))
		if err != nil {
			return conn, usagef("--unmatched: %s", err)
		}
		conn.Match.Unmatched = policy
	}
	vendor, err := applyProfile(c, &conn)
	if err != nil {
		return conn, err
	}
	if c.IsSet("scope") {
		scopes, err := parseScopes(c.StringSlice("scope"))
		if err != nil {
			return conn, err
		}
		conn.Scopes = scopes
	}
	if c.IsSet("ca-file") {
		pem, err := readCA(c.String("ca-file"))
		if err != nil {
			return conn, err
		}
		conn.CAPEM = pem
	}
	client, err := ehr.New(ehr.Config{
		BaseURL: conn.BaseURL, TokenURL: conn.TokenURL, ClientID: conn.ClientID, Secret: "not looked at here", Scopes: conn.Scopes,
		CAPEM: conn.CAPEM, InsecureLoopback: conn.InsecureLoopback, Profile: vendor,
	})
	if err != nil {
		return conn, settingsFault(err)
	}
	client.Close()
	return conn, nil
}

// parseTypes reads resource types and puts them in the order of reading.
func parseTypes(values []string) ([]cura.ResourceType, error) {
	given := listed(values)
	for _, t := range given {
		if !cura.ResourceType(t).Pulled() {
			var known []string
			for _, k := range cura.ResourceTypes() {
				known = append(known, string(k))
			}
			return nil, usagef("Cura doesn't pull resources of type %q; it pulls %s", t, strings.Join(known, ", "))
		}
	}
	var types []cura.ResourceType
	for _, t := range cura.ResourceTypes() {
		if slices.Contains(given, string(t)) {
			types = append(types, t)
		}
	}
	if len(types) == 0 {
		return nil, usagef("--types names no resource type")
	}
	return types, nil
}

// parseScopes checks scopes. A single empty one means that none is asked for, as Epic wants it.
func parseScopes(values []string) ([]string, error) {
	scopes := []string{}
	for _, v := range values {
		v = strings.TrimSpace(v)
		switch {
		case v == "":
			continue
		case strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' }):
			return nil, usagef("--scope takes one scope at a time, such as system/Patient.rs; repeat the flag for more")
		}
		scopes = append(scopes, v)
	}
	return scopes, nil
}

// readCA reads a CA file; no name means the system's certificates.
func readCA(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	pem, err := readSmall(name, 1<<20)
	if err != nil {
		return "", usagef("--ca-file: %s", err)
	}
	return string(pem), nil
}

// checkSecretSource checks that a secret is named, or can be asked for.
func checkSecretSource(c *cli.Context) error {
	if c.String("secret-file") == "" && prompting(c) < 0 {
		return usagef("the client secret is missing: give it with --secret-file FILE, or on standard input with --secret-file -")
	}
	return nil
}

// prompting is the file descriptor of the terminal to ask at; -1 without one.
func prompting(c *cli.Context) int {
	file, ok := c.App.Reader.(*os.File)
	if !ok {
		return -1
	}
	fd := int(file.Fd())
	if !term.IsTerminal(fd) {
		return -1
	}
	return fd
}

// readSecret reads the client secret from its file, from standard input or from a prompt that doesn't echo. The newline
// that ends a file isn't part of it. Its errors hold nothing of it.
func readSecret(c *cli.Context) (string, error) {
	if err := checkSecretSource(c); err != nil {
		return "", err
	}
	var raw []byte
	var err error
	switch name := c.String("secret-file"); name {
	case "":
		fmt.Fprint(c.App.ErrWriter, "Client secret: ")
		raw, err = term.ReadPassword(prompting(c))
		fmt.Fprintln(c.App.ErrWriter)
	case "-":
		raw, err = io.ReadAll(io.LimitReader(c.App.Reader, maxSecret+1))
	default:
		raw, err = readSmall(name, maxSecret)
	}
	if err != nil {
		return "", fmt.Errorf("reading the client secret: %w", err)
	}
	secret := strings.TrimRight(string(raw), "\r\n")
	switch {
	case secret == "":
		return "", usagef("the client secret is empty; give the one that the hospital has registered for Cura")
	case len(secret) > maxSecret || strings.ContainsAny(secret, "\r\n"):
		return "", usagef("the client secret isn't one line of at most %d bytes; give the secret alone", maxSecret)
	}
	return secret, nil
}

const maxSecret = 4096

// readSmall reads a file that can't be large.
func readSmall(name string, limit int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes; it can't be the right file", name, limit)
	}
	return raw, err
}

// validConnectionName leaves room for the suffix that a removed connection gets.
func validConnectionName(name string) bool {
	return regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`).MatchString(name)
}
