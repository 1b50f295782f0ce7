package main

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMigrateMayBeRunAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	login, err := url.Parse(d.db.URL)
	require.NoError(t, err)
	password, _ := login.User.Password()
	file := filepath.Join(t.TempDir(), "worker_password")
	require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))

	got := starter(t, "migrate", "--bootstrap-url", d.db.SuperuserURL, "--url", d.db.MigratorURL, "--worker-password-file", file)
	require.Equal(t, exitDone, got.code, got.err)
	require.Contains(t, got.out, "up to date already")
	require.Contains(t, got.err, "The roles are there")
	d.does(t, "org", "add", "st-mary") // the worker still gets in
	require.Equal(t, exitDone, starter(t, "migrate", "--migrate-url", d.db.MigratorURL).code)

	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	empty := starter(t, "migrate", "--bootstrap-url", d.db.SuperuserURL, "--url", d.db.MigratorURL, "--worker-password-file", file)
	require.Equal(t, exitUsage, empty.code)
	require.Contains(t, empty.err, "is empty")
	wrong := starter(t, "migrate", "--url", "postgres://:x:y")
	require.Equal(t, exitFailed, wrong.code)
	require.Contains(t, wrong.err, "postgres://cura_migrator:PASSWORD@HOST:PORT/DATABASE")
}
