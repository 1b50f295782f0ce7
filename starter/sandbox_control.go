package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cura-health/ehr-sync/internal/fault"
)

func faultsCommand() *cli.Command {
	return &cli.Command{
		Name:  "faults",
		Usage: "show or turn the knobs of a sandbox that runs",
		Description: "Without --set and --clear it shows them. --set turns the knobs that it names; the others stay.\n\n" +
			example("starter sandbox faults --control http://127.0.0.1:9444 --set '{\"revoked_client\":true}'",
				"starter sandbox faults --control http://127.0.0.1:9444 --set '{\"writes\":{\"timeout_after_share\":0.1,\"error_before_share\":0.1}}'",
				"starter sandbox faults --control http://127.0.0.1:9444 --clear"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "control", Value: "http://127.0.0.1:9444", Usage: "the control endpoint's `URL`, on this host"},
			&cli.StringFlag{Name: "set", Usage: "knobs to turn, as `JSON`"},
			&cli.BoolFlag{Name: "clear", Usage: "put all knobs back"},
			&cli.BoolFlag{Name: "show", Usage: "show the knobs, as without any flag"},
		},
		Action: sandboxFaults,
	}
}

func sandboxFaults(c *cli.Context) error {
	if err := noWords(c); err != nil {
		return err
	}
	method, body := http.MethodGet, []byte(nil)
	switch {
	case c.IsSet("set") && c.Bool("clear"):
		return usagef("--set and --clear say different things; give one of the two")
	case c.Bool("show") && (c.IsSet("set") || c.Bool("clear")):
		return usagef("--show goes alone; --set and --clear show the knobs too")
	case c.Bool("clear"):
		method, body = http.MethodPut, []byte("{}")
	case c.IsSet("set"):
		method, body = http.MethodPatch, []byte(c.String("set"))
	}
	answer, err := control(c.Context, c.String("control"), method, body)
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, answer, "", "  "); err != nil {
		return errors.New("the control endpoint's answer isn't JSON; check --control")
	}
	_, err = fmt.Fprintln(c.App.Writer, indented.String())
	return err
}

// maxControlAnswer is far more than the knobs take.
const maxControlAnswer = 1 << 20

// control sends a request for the knobs to a sandbox on this host, and gives the knobs as they are then.
func control(ctx context.Context, base, method string, body []byte) ([]byte, error) {
	const op = "turning the sandbox's knobs"
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" || !loopback(u.Hostname()) {
		return nil, usagef("--control must be an http URL of this host, such as http://127.0.0.1:9444; the sandbox prints it")
	}
	req, err := http.NewRequestWithContext(ctx, method, u.JoinPath("faults").String(), bytes.NewReader(body))
	if err != nil {
		return nil, usagef("--control can't be read as a URL")
	}
	req.Header.Set("Content-Type", "application/json")
	// No proxy: the endpoint is on this host.
	httpClient := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := httpClient.Do(req)
	if err != nil {
		return nil, fault.Wrap(op, fault.Unavailable, "no sandbox answers at "+u.Host, err).
			WithFix("Give the control URL that the sandbox printed, with --control")
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxControlAnswer))
	if err != nil {
		return nil, fault.Wrap(op, fault.Unavailable, "the answer broke off", err).WithFix("Try again")
	}
	if resp.StatusCode != http.StatusOK {
		var refusal struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(answer, &refusal) != nil || refusal.Error == "" {
			refusal.Error = fmt.Sprintf("it answered %d; check that --control names a sandbox", resp.StatusCode)
		}
		return nil, fault.New(op, fault.Config, strings.TrimSpace(refusal.Error))
	}
	return answer, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
