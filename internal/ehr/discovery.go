package ehr

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/oauth2"

	"github.com/cura-health/ehr-sync/internal/fault"
)

const (
	opDiscovery     = "discovering the token endpoint"
	fixTokenURL     = "Ask the hospital for its token endpoint and give it with --token-url"
	maxDiscoveryDoc = 1 << 20
)

// authorization is what SMART discovery tells: where tokens are, and how the server takes the secret.
type authorization struct {
	tokenURL *url.URL
	style    oauth2.AuthStyle
}

// discover reads .well-known/smart-configuration below the FHIR base (SMART App Launch 2.x, "Conformance": appended to
// the base even where that has a path). Errors are fault.Config where the document can't be used, and transport faults.
func (c *Client) discover(ctx context.Context) (authorization, error) {
	r := request{
		errand: errandDocument, op: opDiscovery, url: c.base.JoinPath(".well-known", "smart-configuration"), accept: "application/json",
	}
	var doc struct {
		TokenEndpoint string   `json:"token_endpoint"`
		AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	}
	err := c.ask(ctx, c.open, r, func(_ http.Header, body *watched) error {
		err := json.NewDecoder(io.LimitReader(body, maxDiscoveryDoc)).Decode(&doc)
		if body.err != nil {
			return transportFault(ctx, opDiscovery, body.err)
		}
		if err != nil {
			return fault.Wrap(opDiscovery, fault.Protocol, "smart-configuration isn't the JSON that SMART describes", err).WithFix(fixTokenURL)
		}
		return nil
	})
	if err != nil {
		return authorization{}, err
	}
	if doc.TokenEndpoint == "" {
		return authorization{}, fault.New(opDiscovery, fault.Config, "smart-configuration names no token_endpoint").WithFix(fixTokenURL)
	}

	// Some older servers give relative addresses, meant from the FHIR base.
	ref, err := url.Parse(doc.TokenEndpoint)
	if err != nil {
		return authorization{}, fault.Wrap(opDiscovery, fault.Config, "smart-configuration's token_endpoint isn't a URL", err).WithFix(fixTokenURL)
	}
	found, err := parseEndpoint("discovered token endpoint", c.base.JoinPath("/").ResolveReference(ref).String(), c.cfg.InsecureLoopback)
	if err != nil {
		return authorization{}, err
	}
	if !sameDomain(c.base.Hostname(), found.Hostname()) {
		return authorization{}, fault.New(opDiscovery, fault.Config, "the discovered token endpoint lies outside the FHIR base's domain, and the secret isn't sent there unasked").
			WithFix(fixTokenURL)
	}
	style, err := authStyle(doc.AuthMethods)
	return authorization{tokenURL: found, style: style}, err
}

// authStyle chooses how the secret is sent. It is never left to the library to find out: that would send a wrong guess
// first, and some servers lock a client out for it.
func authStyle(methods []string) (oauth2.AuthStyle, error) {
	switch {
	case len(methods) == 0 || slices.Contains(methods, "client_secret_basic"):
		return oauth2.AuthStyleInHeader, nil
	case slices.Contains(methods, "client_secret_post"):
		return oauth2.AuthStyleInParams, nil
	default:
		return oauth2.AuthStyleAutoDetect, fault.New(opDiscovery, fault.Config, "the authorization server takes no client secrets").
			WithFix("Ask the hospital to register the client with a secret: client_secret_basic or client_secret_post")
	}
}
