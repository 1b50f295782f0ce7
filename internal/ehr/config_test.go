package ehr_test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/ehr"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func TestNewRefusesSettings(t *testing.T) {
	t.Parallel()
	good := ehr.Config{BaseURL: "https://ehr.hospital.example/fhir", ClientID: clientID, Secret: secret}
	cases := map[string]struct {
		change func(*ehr.Config)
		detail string
	}{
		"no base":               {func(c *ehr.Config) { c.BaseURL = "" }, "isn't an absolute URL"},
		"no scheme":             {func(c *ehr.Config) { c.BaseURL = "ehr.hospital.example/fhir" }, "isn't an absolute URL"},
		"not a URL":             {func(c *ehr.Config) { c.BaseURL = "https://ehr hospital%zz" }, "isn't an absolute URL"},
		"another scheme":        {func(c *ehr.Config) { c.BaseURL = "ftp://ehr.hospital.example/fhir" }, "neither https nor http"},
		"plain http":            {func(c *ehr.Config) { c.BaseURL = "http://ehr.hospital.example/fhir" }, "in the clear"},
		"plain http, with flag": {func(c *ehr.Config) { c.BaseURL = "http://ehr.hospital.example"; c.InsecureLoopback = true }, "in the clear"},
		"plain http, private":   {func(c *ehr.Config) { c.BaseURL = "http://10.1.2.3"; c.InsecureLoopback = true }, "in the clear"},
		"loopback without flag": {func(c *ehr.Config) { c.BaseURL = "http://127.0.0.1:8080/fhir" }, "needs to be allowed"},
		"looks like loopback":   {func(c *ehr.Config) { c.BaseURL = "http://127.0.0.1.evil.example"; c.InsecureLoopback = true }, "in the clear"},
		"password in the base":  {func(c *ehr.Config) { c.BaseURL = "https://user:" + secret + "@ehr.hospital.example" }, "user name or password"},
		"query":                 {func(c *ehr.Config) { c.BaseURL += "?tenant=1" }, "has a query"},
		"fragment":              {func(c *ehr.Config) { c.BaseURL += "#top" }, "has a fragment"},
		"metadata":              {func(c *ehr.Config) { c.BaseURL += "/metadata" }, "names a document"},
		"token URL":             {func(c *ehr.Config) { c.TokenURL = "/token" }, "isn't an absolute URL"},
		"token URL, http":       {func(c *ehr.Config) { c.TokenURL = "http://auth.hospital.example/token" }, "in the clear"},
		"no client id":          {func(c *ehr.Config) { c.ClientID = "" }, "client id or its secret is empty"},
		"no secret":             {func(c *ehr.Config) { c.Secret = "" }, "client id or its secret is empty"},
		"CA, garbage":           {func(c *ehr.Config) { c.CAPEM = "not a certificate" }, "no PEM certificate"},
		"CA, DER":               {func(c *ehr.Config) { c.CAPEM = "0\x82\x01\x0a" }, "no PEM certificate"},
		"CA, a key": {func(c *ehr.Config) {
			c.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(secret)}))
		}, "block 1 isn't a certificate"},
		"CA, nonsense within": {func(c *ehr.Config) {
			c.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("nonsense")}))
		}, "can't be parsed"},
		"CA, cut short": {func(c *ehr.Config) { c.CAPEM = "-----BEGIN CERTIFICATE-----\nMIIB" }, "block 1 is cut short"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			test.change(&cfg)
			_, err := ehr.New(cfg)
			f := requireFault(t, err, fault.Config)
			require.Contains(t, f.Detail, test.detail)
			require.NotEmpty(t, f.Fix)
			require.NotContains(t, f.Error(), secret)
		})
	}
}

func TestNewTakesSettings(t *testing.T) {
	t.Parallel()
	cases := map[string]ehr.Config{
		"https":          {BaseURL: "https://ehr.hospital.example/fhir/R4"},
		"trailing slash": {BaseURL: "https://ehr.hospital.example/fhir/R4/"},
		"no path":        {BaseURL: "https://ehr.hospital.example"},
		"private":        {BaseURL: "https://10.1.2.3:8443/fhir"},
		"loopback":       {BaseURL: "http://localhost:8080/fhir", InsecureLoopback: true},
		"loopback, IPv6": {BaseURL: "http://[::1]:8080/fhir", InsecureLoopback: true},
		"token URL":      {BaseURL: "https://ehr.hospital.example", TokenURL: "https://login.vendor.example/token"},
	}
	for name, cfg := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.ClientID, cfg.Secret = clientID, secret
			newClient(t, cfg)
		})
	}
}

func TestConfigPrintsNoSecret(t *testing.T) {
	t.Parallel()
	cfg := ehr.Config{BaseURL: "https://ehr.hospital.example", ClientID: clientID, Secret: secret}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("connecting", "config", cfg)
	for _, shown := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", &cfg), log.String()} {
		require.Contains(t, shown, "ehr.hospital.example")
		require.NotContains(t, shown, "s3cret")
	}
}
