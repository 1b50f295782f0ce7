// Package stack runs the pieces that Cura EHR Sync needs around it on one machine: a private PostgreSQL cluster, a
// Temporal server with its Web UI, and supervised child processes such as the worker. `starter dev` and the tests use
// it; production brings its own PostgreSQL and Temporal.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	defaultGrace = 10 * time.Second
	// An exit error quotes the end of the log: enough to see the cause, little enough for a terminal.
	tailLines = 12
	tailBytes = 8 << 10
)

// ProcessConfig describes a child process.
type ProcessConfig struct {
	// Name says in errors which child this is, such as "worker".
	Name string
	// Path is the program's file.
	Path string
	Args []string
	// Env holds KEY=VALUE lines; nil hands on the environment of this process.
	Env []string
	// Dir is the working folder; empty means this process's own.
	Dir string
	// Log is the file that standard output and error are appended to; its folder is made when missing. Empty drops them.
	Log string
	// StopSignal is what Stop sends first; 0 means SIGTERM.
	StopSignal syscall.Signal
	// Grace is how long Stop waits before SIGKILL; 0 means 10 s.
	Grace time.Duration

	// inherit are open files that the child keeps open, such as a lock.
	inherit []*os.File
	// credential is the user the process runs as; nil means our own.
	credential *syscall.Credential
}

// Process is a running child in a process group of its own, so that Ctrl-C on the terminal reaches only its parent,
// which then stops it in order. On Linux it's signalled as well when its parent dies without having stopped it.
type Process struct {
	cfg ProcessConfig
	cmd *exec.Cmd
	// logStart is where this run's own lines begin in the log.
	logStart int64
	stopping atomic.Bool
	done     chan struct{}
	err      error // set before done is closed
}

// StartProcess starts the child. ctx bounds nothing but the start: the process runs until it ends by itself, or Stop or
// Kill is called.
func StartProcess(ctx context.Context, cfg ProcessConfig) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Name, err)
	}
	if cfg.StopSignal == 0 {
		cfg.StopSignal = syscall.SIGTERM
	}
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	p := &Process{cfg: cfg, done: make(chan struct{})}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), cfg.Path, cfg.Args...)
	p.cmd.Env = cfg.Env
	p.cmd.Dir = cfg.Dir
	p.cmd.ExtraFiles = cfg.inherit
	p.cmd.SysProcAttr = childAttr(cfg.credential, cfg.StopSignal)

	log, err := p.openLog()
	if err != nil {
		return nil, err
	}
	if log != nil {
		p.cmd.Stdout, p.cmd.Stderr = log, log
	}

	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the thread that started the child ends, not the process: this
		// goroutine keeps its thread for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		startErr := p.cmd.Start()
		if log != nil {
			// The child has its own descriptor by now.
			startErr = errors.Join(startErr, log.Close())
		}
		started <- startErr
		if startErr != nil {
			return
		}
		p.err = p.exitError(p.cmd.Wait())
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Name, err)
	}
	return p, nil
}

func (p *Process) openLog() (*os.File, error) {
	if p.cfg.Log == "" {
		return nil, nil // no log was asked for: the child's output is dropped
	}
	if err := os.MkdirAll(filepath.Dir(p.cfg.Log), 0o750); err != nil {
		return nil, fmt.Errorf("making the log folder of %s: %w", p.cfg.Name, err)
	}
	log, err := os.OpenFile(p.cfg.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", p.cfg.Name, err)
	}
	if p.logStart, err = log.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the log of %s: %w", p.cfg.Name, err), log.Close())
	}
	return log, nil
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the child ended: nil while it runs, after a clean exit, and after Stop or Kill asked for its end;
// otherwise its exit status with the last lines of its log.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Stop asks the child to end, waits, and kills its process group when the grace is over. Stopping a child that has
// already ended does nothing.
func (p *Process) Stop() error {
	p.stopping.Store(true)
	if err := p.signal(p.cfg.StopSignal); err != nil {
		return err
	}
	timer := time.NewTimer(p.cfg.Grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("%s did not stop within %s and was killed; see %s", p.cfg.Name, p.cfg.Grace, p.cfg.Log)
}

// Kill sends SIGKILL to the child's process group and waits for the child's end, as a crash would be.
func (p *Process) Kill() error {
	p.stopping.Store(true)
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(-p.PID(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing %s: %w", p.cfg.Name, err)
	}
	<-p.done
	return nil
}

func (p *Process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling %s: %w", p.cfg.Name, err)
	}
	return nil
}

func (p *Process) exitError(err error) error {
	if err == nil || p.stopping.Load() {
		return nil
	}
	tail := p.tail()
	if tail == "" {
		return fmt.Errorf("%s ended unexpectedly: %w", p.cfg.Name, err)
	}
	return fmt.Errorf("%s ended unexpectedly: %w; the last lines of %s:\n%s", p.cfg.Name, err, p.cfg.Log, tail)
}

// tail gives the last lines that this run has written to its log, "" when there are none.
func (p *Process) tail() string {
	if p.cfg.Log == "" {
		return ""
	}
	f, err := os.Open(p.cfg.Log)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(p.logStart, info.Size()-tailBytes)
	text, err := io.ReadAll(io.NewSectionReader(f, from, tailBytes))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
