package stack

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// minPostgres is the oldest PostgreSQL that the schema works on.
const minPostgres = 15

var errNoPostgres = fmt.Errorf("PostgreSQL >= %d was found neither on PATH nor under /usr/lib/postgresql: run make postgres, or install your system's PostgreSQL server package", minPostgres)

// findPostgres gives the folder of the server's programs: that of the postgres on PATH, else the newest that Debian's
// packages have installed.
func findPostgres(ctx context.Context) (string, error) {
	var candidates []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// A link somewhere on PATH has no initdb beside it.
		if server, err := filepath.EvalSymlinks(path); err == nil {
			candidates = append(candidates, filepath.Dir(server))
		}
	}
	debian, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", fmt.Errorf("looking for PostgreSQL: %w", err)
	}
	newest, newestBin := 0, ""
	for _, path := range debian {
		bin := filepath.Dir(path)
		if major, err := majorVersion(ctx, bin); err == nil && major > newest {
			newest, newestBin = major, bin
		}
	}
	if newestBin != "" {
		candidates = append(candidates, newestBin)
	}
	for _, bin := range candidates {
		if major, err := majorVersion(ctx, bin); err == nil && major >= minPostgres {
			if _, err := exec.LookPath(filepath.Join(bin, "initdb")); err == nil {
				return bin, nil
			}
		}
	}
	return "", errNoPostgres
}

// majorVersion asks the server program in bin for its version: "postgres (PostgreSQL) 15.13 (Debian …)" is 15.
func majorVersion(ctx context.Context, bin string) (int, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version")
	cmd.Env = serverEnv()
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("asking PostgreSQL for its version: %w", err)
	}
	m := regexp.MustCompile(`\) (\d+)`).FindSubmatch(out)
	if m == nil {
		return 0, errors.New("asking PostgreSQL for its version: no number in the answer")
	}
	return strconv.Atoi(string(m[1]))
}
