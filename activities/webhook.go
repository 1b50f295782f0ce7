package activities

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// deliveryAttempts is how often the webhook is tried for one alert.
const deliveryAttempts = 5

// deliveries are the alerts under way to the webhook, in the background.
type deliveries struct {
	running sync.WaitGroup
	// stop is closed when the worker stops: no further attempt begins then.
	stop chan struct{}
	once sync.Once
}

func newDeliveries() *deliveries { return &deliveries{stop: make(chan struct{})} }

// wait waits before the next attempt.
func (d *deliveries) wait(pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-d.stop:
		return errors.New("the worker stopped before it did")
	case <-timer.C:
		return nil
	}
}

// close waits for the attempts under way.
func (d *deliveries) close() {
	d.once.Do(func() { close(d.stop) })
	d.running.Wait()
}

// SignatureHeader carries the signature of an alert.
const SignatureHeader = "X-Cura-Signature"

// Sign is the value of [SignatureHeader] for a body that is sent at the instant at:
//
//	t=UNIX-SECONDS,v1=HEX
//
// HEX is the HMAC-SHA256, under the secret that CURA_ALERT_WEBHOOK_SECRET_FILE holds (without the space around it), of
// the seconds, a full stop and the body: "1764000000.{...}". A receiver computes the same over the body as it came, byte
// by byte before any parsing, compares in constant time, and refuses a time that is more than five minutes off, so that
// an alert that somebody has recorded can't be played again later; within them, the alert's id tells a repetition. Values
// under names other than v1 may be added later; ignore them. Each attempt to deliver an alert has its own time.
func Sign(secret, body []byte, at time.Time) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// deliver posts an alert to the webhook, a few times where that fails in a way that may pass.
func (a *Activities) deliver(ctx context.Context, log *slog.Logger, alert Alert) {
	body, err := json.Marshal(alert)
	for attempt := 1; err == nil; attempt++ {
		var again bool
		if again, err = a.post(ctx, body); err == nil {
			return
		}
		if again && attempt < deliveryAttempts {
			err = a.deliveries.wait(Backoff(attempt, a.cfg.RetryInitial, a.cfg.RetryMax))
		}
	}
	a.metrics.WebhookFailed(ctx)
	log.ErrorContext(ctx, "the alert webhook hasn't taken an alert; it stands in the audit log", "why", err.Error())
}

// post sends one attempt. Its errors hold nothing of the URL, which may have a token in it; again reports whether another
// attempt may do better.
func (a *Activities) post(ctx context.Context, body []byte) (again bool, err error) {
	secret, err := a.cfg.AlertSecret()
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.cfg.AlertWebhook, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("CURA_ALERT_WEBHOOK isn't a URL; correct it")
	}
	req.Header.Set("Content-Type", "application/json")
	if secret != nil {
		req.Header.Set(SignatureHeader, Sign(secret, body, time.Now()))
	}
	resp, err := a.webhook.Do(req)
	if err != nil {
		return true, errors.New("it doesn't answer")
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	switch code := resp.StatusCode; {
	case code < 300:
		return false, nil
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return true, fmt.Errorf("it answers with status %d", code)
	default:
		return false, fmt.Errorf("it answers with status %d; correct CURA_ALERT_WEBHOOK, or what receives it", code)
	}
}
