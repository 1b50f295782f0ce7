package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	postgresLock = "postgres.lock"
	temporalLock = "temporal.lock"
	lockWait     = 10 * time.Second
)

var errLocked = errors.New("in use by another run: stop that one first (Ctrl-C in its terminal)")

// lockCluster takes the lock that the process running the cluster in dir holds for as long as it lives.
func lockCluster(dir string) (*os.File, error) {
	f, err := lockFile(filepath.Join(dir, postgresLock))
	if err != nil {
		return nil, fmt.Errorf("the PostgreSQL cluster in %s: %w", dir, err)
	}
	return f, nil
}

// lockTemporal takes the lock on the Temporal server's file in dir, waiting a while for a server that is just ending.
func lockTemporal(ctx context.Context, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := lockFile(filepath.Join(dir, temporalLock))
		if err == nil {
			return f, nil
		}
		err = fmt.Errorf("the Temporal server's file in %s: %w", dir, err)
		if !errors.Is(err, errLocked) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
		}
	}
}

// lockFile locks a file, which is made when missing, until the last descriptor of it is closed; it gives errLocked when
// somebody else has it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, errors.Join(errLocked, f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("locking: %w", err), f.Close())
	}
	return f, nil
}

// unlockFile ends the lock at once. Closing alone would leave it to a child that is just being started by somebody else,
// which has a copy of every open file until it executes its own program.
func unlockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("unlocking: %w", err)
	}
	return nil
}
