package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
)

// minAlertSecret is the shortest secret that alerts are signed with: a guess at a shorter one may succeed.
const minAlertSecret = 16

// validateAlerts checks the webhook. Its errors don't repeat the URL, which may hold a token.
func (c Config) validateAlerts() error {
	if c.AlertWebhook == "" {
		return nil
	}
	u, err := url.Parse(c.AlertWebhook)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return errors.New("CURA_ALERT_WEBHOOK isn't an absolute URL; give it as https://HOST/PATH")
	}
	return nil
}

// AlertSecret reads the secret that alerts are signed with from its file, without the space around it; nil where none is
// named. Its errors don't repeat what the file holds.
func (c Config) AlertSecret() ([]byte, error) {
	if c.AlertWebhookSecretFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.AlertWebhookSecretFile)
	if err != nil {
		return nil, fmt.Errorf("reading CURA_ALERT_WEBHOOK_SECRET_FILE: %w", err)
	}
	secret := bytes.TrimSpace(text)
	if len(secret) < minAlertSecret {
		return nil, fmt.Errorf("CURA_ALERT_WEBHOOK_SECRET_FILE holds %d bytes; make a secret of at least %d, as with: openssl rand -hex 32",
			len(secret), minAlertSecret)
	}
	return secret, nil
}
