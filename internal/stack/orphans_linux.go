package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const orphanGrace = 10 * time.Second

// stopOrphans ends what a killed run has left running in the data folder. The caller holds the cluster's lock, so
// nothing there belongs to a live run. A postmaster and its backends all have the data folder as working folder, which
// tells them surely from a stranger that was given an old process id.
func stopOrphans(ctx context.Context, data string) error {
	data, err := filepath.EvalSymlinks(data) // as /proc tells it
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for PostgreSQL processes of an earlier run: %w", err)
	}
	// A fast shutdown by the postmaster ends its backends as well.
	if pid := postmasterPID(data); pid != 0 && worksIn(pid, data) {
		if err := signalAll([]int{pid}, syscall.SIGINT); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(orphanGrace)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := workersIn(data)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			if err := signalAll(left, syscall.SIGKILL); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for PostgreSQL processes of an earlier run (%v) to end: %w", left, ctx.Err())
		case <-tick.C:
		}
	}
}

// postmasterPID reads the process id that the last postmaster has left, 0 when there is none.
func postmasterPID(data string) int {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}

func worksIn(pid int, data string) bool {
	cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return err == nil && cwd == data
}

func workersIn(data string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && worksIn(pid, data) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func signalAll(pids []int, sig syscall.Signal) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stopping process %d of an earlier run of PostgreSQL: %w", pid, err)
		}
	}
	return nil
}
