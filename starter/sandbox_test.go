package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSandboxRunsUntilItIsTold(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	var errs bytes.Buffer
	code := make(chan int, 1)
	oneAtATime.Lock()
	go func() {
		defer writer.Close()
		code <- run(ctx, []string{
			"starter", "sandbox", "--addr", "127.0.0.1:0", "--control-addr", "127.0.0.1:0", "--state", state, "--patients", "2",
			"--throttle-every", "7", "--refuse-type", "Consent,Encounter", "--fault", `{"no_total":true}`, "--output", "json",
		}, bytes.NewReader(nil), writer, &errs)
	}()
	var view sandboxView
	err := json.NewDecoder(reader).Decode(&view)
	oneAtATime.Unlock()
	require.NoError(t, err)
	require.Equal(t, 2, view.Counts["Patient"])
	ca, err := os.ReadFile(view.CAFile)
	require.NoError(t, err)
	require.Contains(t, string(ca), "BEGIN CERTIFICATE")
	require.Equal(t, filepath.Join(state, "client-secret"), view.SecretFile)
	secret, err := os.Stat(view.SecretFile)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), secret.Mode().Perm())

	faults := func(more ...string) typedLine {
		return starter(t, append([]string{"sandbox", "faults", "--control", view.ControlURL}, more...)...)
	}
	shown := faults()
	require.Equal(t, exitDone, shown.code, shown.err)
	require.JSONEq(t, `{"throttle":{"every_n":7,"retry_after_seconds":1},"refuse_types":["Consent","Encounter"],"no_total":true}`, shown.out)
	require.JSONEq(t, `{"throttle":{"every_n":7,"retry_after_seconds":1},"refuse_types":["Consent","Encounter"],"no_total":true,"html":true}`,
		faults("--set", `{"html":true}`).out, "the others stay")
	wrong := faults("--set", `{"htlm":true}`)
	require.Equal(t, exitFailed, wrong.code)
	require.Contains(t, wrong.err, "htlm")
	require.JSONEq(t, "{}", faults("--clear").out)

	cancel()
	require.Equal(t, exitDone, <-code, errs.String())
	gone := faults()
	require.Equal(t, exitFailed, gone.code)
	require.Contains(t, gone.err, "no sandbox answers")
}

func TestAnUnknownVendorIsRefused(t *testing.T) {
	t.Parallel()
	got := starter(t, "sandbox", "--vendor", "meditech")
	require.Equal(t, exitUsage, got.code, got.err)
	require.Contains(t, got.err, "athena, epic, hapi, medplum")
}
