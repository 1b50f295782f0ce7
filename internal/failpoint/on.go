//go:build failpoints

package failpoint

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	mu   sync.Mutex
	seen = map[string]int{}
)

// Reach ends the process with SIGKILL when CURA_FAILPOINT has "place:n" and this is the nth time that the place is reached;
// several are separated by commas. With CURA_FAILPOINT_SIGNAL=STOP it stops the process there, until SIGCONT. Before, the
// place is written to the file that CURA_FAILPOINT_REACHED names, so that a test can tell it from a place that never came.
func Reach(place string) {
	if !reached(place) {
		return
	}
	if err := os.WriteFile(os.Getenv("CURA_FAILPOINT_REACHED"), []byte(place), 0o600); err != nil {
		panic(err)
	}
	if os.Getenv("CURA_FAILPOINT_SIGNAL") != "STOP" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	// Another thread may have taken the signal: this one mustn't get further before it is stopped too.
	time.Sleep(10 * time.Millisecond)
}

// reached counts, and reports whether this is the time.
func reached(place string) bool {
	for wanted := range strings.SplitSeq(os.Getenv("CURA_FAILPOINT"), ",") {
		name, count, ok := strings.Cut(wanted, ":")
		if !ok || name != place {
			continue
		}
		n, err := strconv.Atoi(count)
		if err != nil {
			panic("CURA_FAILPOINT isn't place:n")
		}
		mu.Lock()
		defer mu.Unlock()
		seen[place]++
		return seen[place] == n
	}
	return false
}

// Off reports whether CURA_FAILPOINT_OFF takes a safeguard out; several are separated by commas.
func Off(safeguard string) bool {
	return slices.Contains(strings.Split(os.Getenv("CURA_FAILPOINT_OFF"), ","), safeguard)
}
