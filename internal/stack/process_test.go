package stack_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/stack"
)

func shell(t *testing.T, script string) *stack.Process {
	t.Helper()
	p, err := stack.StartProcess(t.Context(), stack.ProcessConfig{
		Name:  "child",
		Path:  "/bin/sh",
		Args:  []string{"-c", script},
		Log:   filepath.Join(t.TempDir(), "logs", "child.log"),
		Grace: time.Minute,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Kill()) })
	return p
}

func TestProcessEndsByItself(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script   string
		wantErr  []string // parts of the error; none means no error
		dontWant string
	}{
		"cleanly":             {script: "exit 0"},
		"with a status":       {script: "echo out of luck >&2; exit 3", wantErr: []string{"child ended unexpectedly", "exit status 3", "out of luck"}},
		"without a word":      {script: "exit 4", wantErr: []string{"exit status 4"}},
		"after many lines":    {script: "for i in $(seq 1 500); do echo line-$i-; done; exit 5", wantErr: []string{"line-489-", "line-500-"}, dontWant: "line-488-"},
		"killed from outside": {script: "kill -9 $$", wantErr: []string{"signal: killed"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := shell(t, tc.script)
			<-p.Done()
			if tc.wantErr == nil {
				require.NoError(t, p.Err())
				return
			}
			for _, part := range tc.wantErr {
				require.ErrorContains(t, p.Err(), part)
			}
			if tc.dontWant != "" {
				require.NotContains(t, p.Err().Error(), tc.dontWant)
			}
			require.NoError(t, p.Stop(), "stopping what has ended does nothing")
		})
	}
}

func TestProcessStop(t *testing.T) {
	t.Parallel()
	p := shell(t, "exec sleep 600")
	require.NoError(t, p.Err(), "it runs")
	require.NoError(t, p.Stop())
	<-p.Done()
	require.NoError(t, p.Err(), "it was asked to end")
}

func TestProcessStopKillsWhatDoesNotListen(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "deaf.log")
	p, err := stack.StartProcess(t.Context(), stack.ProcessConfig{
		Name:  "deaf",
		Path:  "/bin/sh",
		Args:  []string{"-c", "trap '' TERM; echo deaf; while :; do sleep 600; done"},
		Log:   log,
		Grace: time.Millisecond,
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "deaf")
	}, time.Minute, time.Millisecond)
	require.ErrorContains(t, p.Stop(), "deaf did not stop within 1ms and was killed")
	<-p.Done()
}

func TestProcessKillReachesItsChildren(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The grandchild holds the pipe open: its end is the reader's end of file.
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reader.Close()) })
	p, err := stack.StartProcess(t.Context(), stack.ProcessConfig{
		Name: "parent",
		Path: "/bin/sh",
		Args: []string{"-c", "sleep 600 & echo started; wait"},
		Log:  filepath.Join(dir, "parent.log"),
	}.WithInherited(writer))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	require.NoError(t, p.Kill())
	_, err = reader.Read(make([]byte, 1))
	require.Error(t, err, "every holder of the pipe is gone")
}

func TestProcessHasItsOwnGroup(t *testing.T) {
	t.Parallel()
	p := shell(t, "exec sleep 600")
	group, err := syscall.Getpgid(p.PID())
	require.NoError(t, err)
	require.Equal(t, p.PID(), group, "Ctrl-C in the terminal doesn't reach it")
}

func TestProcessDiesWithItsParent(t *testing.T) {
	t.Parallel()
	parent, child := startParent(t, "sleeper", t.TempDir())
	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	requireGone(t, child.PID)
}

func TestProcessThatIsNotThere(t *testing.T) {
	t.Parallel()
	_, err := stack.StartProcess(t.Context(), stack.ProcessConfig{Name: "ghost", Path: filepath.Join(t.TempDir(), "ghost")})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "starting ghost")
}

// requireGone waits for the end of a process that isn't our child; one that nobody has reaped yet counts as gone.
func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return true
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return err != nil || strings.Contains(string(status), "State:\tZ")
	}, time.Minute, 5*time.Millisecond)
}
