package ehr

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/cura-health/ehr-sync/internal/fault"
)

const (
	// earlyRenewal is how long before its end a token is replaced; a short-lived one at half its life.
	earlyRenewal = 60 * time.Second
	// assumedLifetime is for an answer without expires_in: what SMART App Launch 2.x recommends as the longest.
	assumedLifetime = 300 * time.Second
)

// grant is one access token and what came with it.
type grant struct {
	accessToken string
	// lifetime is expires_in; assumed is set where the server left it out.
	lifetime time.Duration
	assumed  bool
	renewAt  time.Time
	// scopes are those granted: an answer without scope grants what was asked for (RFC 6749 §5.1).
	scopes []string
}

// tokens keeps the current grant and fetches one at a time. oauth2.ReuseTokenSource would do, but for three things that
// real servers need: a token refused before its time must be dropped, one of 30 s must still be used, and a caller that
// is cancelled must not wait for another's request.
type tokens struct {
	client *Client
	// turn holds one value while nobody fetches.
	turn    chan struct{}
	current grant
	// lastTaken is the token of the last request that the server didn't refuse for its token.
	lastTaken atomic.Pointer[string]
	// tokenURL and style are known from the start or after discovery.
	tokenURL *url.URL
	style    oauth2.AuthStyle
}

func newTokens(c *Client, tokenURL *url.URL) *tokens {
	t := &tokens{client: c, turn: make(chan struct{}, 1), tokenURL: tokenURL}
	t.turn <- struct{}{}
	return t
}

// get gives the current grant. It fetches a new one where it is due, or where the current one is the access token that
// the server has refused ("" for none): another request may have replaced that already. fresh says that it was fetched
// just now, for this caller. Errors are fault.Auth for refused
// credentials, fault.Config for what has to be edited, and transport faults.
func (t *tokens) get(ctx context.Context, refused string) (g grant, fresh bool, err error) {
	if err := t.take(ctx); err != nil {
		return grant{}, false, err
	}
	defer t.give()
	if g := t.current; g.accessToken != "" && g.accessToken != refused && t.client.cfg.Clock().Before(g.renewAt) {
		return g, false, nil
	}
	if g, err = t.fetch(ctx); err != nil {
		return grant{}, false, err
	}
	t.current = g
	return g, true, nil
}

// taken notes that the server has taken a token.
func (t *tokens) taken(g grant) {
	if !t.wasTaken(g) {
		t.lastTaken.Store(&g.accessToken)
	}
}

// wasTaken reports whether the last token that the server took is this one.
func (t *tokens) wasTaken(g grant) bool {
	last := t.lastTaken.Load()
	return last != nil && *last == g.accessToken
}

// endpoint finds the token endpoint without asking it for a token.
func (t *tokens) endpoint(ctx context.Context) (authorization, error) {
	if err := t.take(ctx); err != nil {
		return authorization{}, err
	}
	defer t.give()
	err := t.locate(ctx)
	return authorization{tokenURL: t.tokenURL, style: t.style}, err
}

func (t *tokens) take(ctx context.Context) error {
	select {
	case <-t.turn:
		return nil
	case <-ctx.Done():
		return transportFault(ctx, opAuthorize, ctx.Err())
	}
}

func (t *tokens) give() { t.turn <- struct{}{} }

const opAuthorize = "getting an access token"

func (t *tokens) fetch(ctx context.Context) (grant, error) {
	if err := t.locate(ctx); err != nil {
		return grant{}, err
	}
	cfg := t.client.cfg
	credentials := clientcredentials.Config{
		ClientID: cfg.ClientID, ClientSecret: cfg.Secret, TokenURL: t.tokenURL.String(), Scopes: cfg.Scopes, AuthStyle: t.style,
	}
	token, err := credentials.Token(context.WithValue(ctx, oauth2.HTTPClient, t.client.open))
	if err != nil {
		return grant{}, tokenFault(ctx, err, cfg.Clock())
	}
	if !strings.EqualFold(token.Type(), "Bearer") {
		return grant{}, fault.New(opAuthorize, fault.Protocol, "the token endpoint gave a token that isn't a bearer token").
			WithFix("Ask the hospital to issue bearer tokens to this client")
	}

	g := grant{accessToken: token.AccessToken, lifetime: assumedLifetime, assumed: true, scopes: cfg.Scopes}
	if !token.Expiry.IsZero() {
		g.lifetime, g.assumed = time.Until(token.Expiry).Round(time.Second), false
	}
	g.renewAt = cfg.Clock().Add(g.lifetime - min(earlyRenewal, g.lifetime/2))
	if scope, ok := token.Extra("scope").(string); ok {
		g.scopes = strings.Fields(scope)
	}
	return g, nil
}

// locate finds the token endpoint and how it wants the secret, once. The connection's own token
// URL wins over discovery, which then only tells how the secret is sent.
func (t *tokens) locate(ctx context.Context) error {
	if t.style != oauth2.AuthStyleAutoDetect {
		return nil
	}
	found, err := t.client.discover(ctx)
	if err != nil {
		if t.tokenURL == nil || ctx.Err() != nil {
			return err
		}
		t.style = oauth2.AuthStyleInHeader // what RFC 6749 §2.3.1 obliges every server to take
		return nil
	}
	if t.tokenURL == nil {
		t.tokenURL = found.tokenURL
	}
	t.style = found.style
	return nil
}

// tokenFault classifies what the token endpoint said. RetrieveError's text holds the body, so only the status and the
// error codes of RFC 6749 §5.2 go into the fault.
func tokenFault(ctx context.Context, err error, now time.Time) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		var carried *url.Error
		// The library flattens an error in reading the body to text; this prefix is all that is left of it.
		if errors.As(err, &carried) || ctx.Err() != nil || strings.HasPrefix(err.Error(), "oauth2: cannot fetch token") {
			return transportFault(ctx, opAuthorize, err)
		}
		return fault.Wrap(opAuthorize, fault.Protocol, "the token endpoint's answer isn't a token", err).
			WithFix("Check the token URL, or leave it out to have it discovered")
	}
	status, asked := refused.Response.StatusCode, readRetryAfter(refused.Response.Header, now)
	seen := statusText(refused.Response) + asked.note()
	if code := knownOAuthCode(refused.ErrorCode); code != "" {
		seen += ", error " + code
	}
	say := func(kind fault.Kind, fix string) error {
		return fault.Wrap(opAuthorize, kind, seen, err).WithFix(fix).After(asked.wait)
	}
	const credentials = "Check the client id and secret (starter connection edit), and ask the hospital whether the client is active and allowed the client_credentials grant"
	switch refused.ErrorCode {
	case "invalid_client", "invalid_grant", "unauthorized_client", "access_denied":
		return say(fault.Auth, credentials)
	case "invalid_scope":
		return say(fault.Config, "Ask only for scopes that the hospital has registered for this client (starter connection edit --scope)")
	case "unsupported_grant_type", "invalid_request":
		return say(fault.Config, "Check the token URL, and ask the hospital to allow this client the client_credentials grant with a secret")
	}
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable && asked.wait > 0:
		return say(fault.Throttled, "Nothing to do: it is tried again when the server says")
	case status >= 500, status == http.StatusRequestTimeout, refused.ErrorCode == "temporarily_unavailable", refused.ErrorCode == "server_error":
		return say(fault.Transient, "If it stays, ask the hospital about its authorization server")
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return say(fault.Auth, credentials)
	case status == http.StatusBadRequest:
		return say(fault.Config, "Check the client id, the secret and the token URL (starter connection edit)")
	case status >= 300 && status < 400:
		return say(fault.Protocol, "Give the token endpoint's final address with --token-url: redirects aren't followed with a secret")
	case status >= 400:
		return say(fault.Config, "Check the token URL, or leave it out to have it discovered")
	default:
		return say(fault.Protocol, "Check the token URL, or leave it out to have it discovered")
	}
}

// knownOAuthCode gives code only if it is one of the closed list, since a server may write anything there.
func knownOAuthCode(code string) string {
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
		"access_denied", "server_error", "temporarily_unavailable":
		return code
	default:
		return ""
	}
}
