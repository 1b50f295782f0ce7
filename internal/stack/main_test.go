package stack_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cura-health/ehr-sync/internal/stack"
)

// roleVar makes this test binary play the parent of a stack that gets killed.
const roleVar = "CURA_STACK_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		os.Exit(playParent(role, os.Args[1]))
	}
	goleak.VerifyTestMain(m)
}

// standing is what a parent tells of the server that it has started.
type standing struct {
	PID int    `json:"pid"`
	URL string `json:"url"`
}

// playParent starts a server in dir, says so on its standard output and stays until it's killed.
func playParent(role, dir string) int {
	ctx := context.Background()
	var now standing
	switch role {
	case "postgres":
		p, err := stack.StartPostgres(ctx, stack.PostgresConfig{Dir: dir, Fast: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		now = standing{PID: stack.PostgresProcess(p).PID(), URL: p.SuperuserURL("postgres")}
	case "sleeper":
		p, err := stack.StartProcess(ctx, stack.ProcessConfig{Name: "sleeper", Path: "/bin/sleep", Args: []string{"600"}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		now = standing{PID: p.PID()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(now); err != nil {
		return 1
	}
	select {}
}

// startParent runs this test binary as a parent in that role.
func startParent(t *testing.T, role, dir string) (*exec.Cmd, standing) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(t, err)
	var now standing
	require.NoError(t, json.Unmarshal(line, &now))
	return cmd, now
}
