package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// meter reads from /proc how much CPU the processes of the system have used.
type meter struct {
	worker, postmaster, temporal int
}

// used is CPU in seconds, user and system.
type used struct{ worker, database, temporal float64 }

func (u used) less(v used) used {
	return used{u.worker - v.worker, u.database - v.database, u.temporal - v.temporal}
}

func newMeter(b *testing.B, worker int) *meter {
	b.Helper()
	m := &meter{worker: worker}
	for _, p := range processes(b) {
		switch {
		case p.parent != os.Getpid():
		case p.name == "postgres":
			m.postmaster = p.id
		case strings.HasPrefix(p.name, "temporal"):
			m.temporal = p.id
		}
	}
	require.NotZero(b, m.postmaster)
	require.NotZero(b, m.temporal)
	return m
}

// now adds up: of PostgreSQL the server, its processes, and those that have ended.
func (m *meter) now(b *testing.B) used {
	b.Helper()
	var u used
	for _, p := range processes(b) {
		switch {
		case p.id == m.worker:
			u.worker += p.seconds
		case p.id == m.postmaster:
			u.database += p.seconds + p.children
		case p.parent == m.postmaster:
			u.database += p.seconds
		case p.id == m.temporal:
			u.temporal += p.seconds
		}
	}
	return u
}

// process is one line of /proc.
type process struct {
	id, parent int
	name       string
	// seconds of CPU, and those of its children that have ended.
	seconds, children float64
}

func processes(b *testing.B) (all []process) {
	b.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(b, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
		fields := strings.Fields(string(text[end+1:]))
		p := process{id: number(b, strings.TrimSpace(string(text[:open]))), parent: number(b, fields[1]), name: string(text[open+1 : end])}
		const ticks = 100 // a second, on every Linux
		p.seconds = float64(number(b, fields[11])+number(b, fields[12])) / ticks
		p.children = float64(number(b, fields[13])+number(b, fields[14])) / ticks
		all = append(all, p)
	}
	return all
}

func number(b *testing.B, text string) int {
	b.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(b, err)
	return n
}

// ownCPU is the CPU of this very process, in seconds.
func ownCPU(b *testing.B) float64 {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}

// peakRSS is the largest resident size that a process has had, in MB (VmHWM).
func peakRSS(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(b, err)
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(b, found)
	return float64(number(b, string(found[1]))) / 1024
}

// superuser is a connection that lasts as long as the benchmark.
func (r *rig) superuser(b *testing.B) *pgx.Conn {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), r.db.SuperuserURL)
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close(b.Context()) })
	return conn
}

func median[T any](all []T, of func(T) float64) float64 {
	values := make([]float64, len(all))
	for i, v := range all {
		values[i] = of(v)
	}
	slices.SortFunc(values, cmp.Compare[float64])
	return values[len(values)/2]
}
