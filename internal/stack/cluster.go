package stack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	secretFile   = "secret"
	locationFile = "location"
	clusterDir   = "cluster"
	dataDir      = "data"
)

// cluster is where a cluster lies and who runs it.
type cluster struct {
	// bin holds postgres and initdb.
	bin string
	// user runs the server; nil means ourselves.
	user *syscall.Credential
	// folder belongs to that user alone; the data folder is in it.
	folder string
	secret []byte
}

func (c cluster) data() string { return filepath.Join(c.folder, dataDir) }

// prepareCluster finds the cluster of dir, or makes it, and sees that nothing of an earlier run is still running in it.
func prepareCluster(ctx context.Context, dir string, fast bool) (cluster, error) {
	bin, err := findPostgres(ctx)
	if err != nil {
		return cluster{}, err
	}
	as, err := serverUser()
	if err != nil {
		return cluster{}, err
	}
	c := cluster{bin: bin, user: as}
	if c.folder, err = placeCluster(ctx, dir, c); err != nil {
		return cluster{}, err
	}
	if err := stopOrphans(ctx, c.data()); err != nil {
		return cluster{}, err
	}
	_, err = os.Stat(c.data())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cluster{}, fmt.Errorf("looking for the PostgreSQL cluster: %w", err)
	}
	made := err == nil
	if c.secret, err = readSecret(dir, made); err != nil {
		return cluster{}, err
	}
	if made {
		return c, c.checkMajor(ctx)
	}
	return c, c.initialise(ctx, fast)
}

// serverUser is the ordinary user that runs the server when we are root, which PostgreSQL refuses to be.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil // nil means ourselves
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return nil, fmt.Errorf("reading the ids of user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL doesn't run as root, and there is neither a user postgres nor nobody: run this as an ordinary user")
}

// placeCluster makes the folder of the cluster inside dir or, where the server's user can't get there (a clone below
// /root), outside it.
func placeCluster(ctx context.Context, dir string, c cluster) (string, error) {
	inside, outside := filepath.Join(dir, clusterDir), outsideDir(dir)
	location := filepath.Join(dir, locationFile)
	noted, err := readLocation(dir)
	if err != nil {
		return "", err
	}
	if noted != "" {
		return outside, makeOwned(outside, c.user)
	}
	if err := makeOwned(inside, c.user); err != nil {
		return "", err
	}
	if c.user == nil || c.reaches(ctx, inside) {
		return inside, nil
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("placing the PostgreSQL cluster: %w", err) // the question was broken off, not answered
	}
	if err := os.Remove(inside); err != nil {
		return "", fmt.Errorf("moving the PostgreSQL cluster out of %s: %w", dir, err)
	}
	// Nothing in dir speaks of a cluster out there: what may be there belonged to a folder that was deleted.
	if err := removeCluster(ctx, outside); err != nil {
		return "", err
	}
	if err := makeOwned(outside, c.user); err != nil {
		return "", err
	}
	if !c.reaches(ctx, outside) {
		return "", fmt.Errorf("the user that runs PostgreSQL can reach neither %s nor %s: run this as an ordinary user", dir, outside)
	}
	if err := os.WriteFile(location, []byte(outside+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("noting where the PostgreSQL cluster is: %w", err)
	}
	return outside, nil
}

// outsideDir is the folder for a cluster that can't lie in dir; its name follows from dir alone.
func outsideDir(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "/var/tmp/cura-ehr-sync-" + hex.EncodeToString(sum[:6])
}

// readLocation gives the folder noted in dir, "" when the cluster lies inside.
func readLocation(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, locationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading where the PostgreSQL cluster is: %w", err)
	}
	noted := strings.TrimSpace(string(text))
	if noted != outsideDir(dir) {
		return "", fmt.Errorf("%s names a folder that isn't this cluster's: was %s moved? Run make clean to begin anew", filepath.Join(dir, locationFile), dir)
	}
	return noted, nil
}

// makeOwned makes a folder for the server's user alone. One that is there already must be his: anybody can make folders
// in /var/tmp.
func makeOwned(folder string, as *syscall.Credential) error {
	err := os.Mkdir(folder, 0o700)
	if err == nil && as != nil {
		err = os.Chown(folder, int(as.Uid), int(as.Gid))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the folder of the PostgreSQL cluster: %w", err)
	}
	info, err := os.Lstat(folder)
	if err != nil {
		return fmt.Errorf("looking at the folder of the PostgreSQL cluster: %w", err)
	}
	owner := os.Geteuid()
	if as != nil {
		owner = int(as.Uid)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != owner || info.Mode().Perm() != 0o700 {
		return fmt.Errorf("%s isn't a folder that only the PostgreSQL user (uid %d) can enter: remove it and start again", folder, owner)
	}
	return nil
}

// reaches asks the kernel rather than guess from modes, groups and access lists: can the server's user work in folder?
func (c cluster) reaches(ctx context.Context, folder string) bool {
	return c.command(ctx, folder, "postgres", "--version").Run() == nil
}

// command is one of PostgreSQL's programs, run as the server's user.
func (c cluster) command(ctx context.Context, folder, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = folder
	cmd.Env = serverEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.user}
	return cmd
}

// readSecret reads the secret that all passwords of the cluster come from, and makes it for a cluster that isn't made yet.
func readSecret(dir string, made bool) ([]byte, error) {
	path := filepath.Join(dir, secretFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && made {
		return nil, fmt.Errorf("%s is gone, and with it every password of the PostgreSQL cluster: run make clean to begin anew", path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		secret := newSecret()
		if err := os.WriteFile(path, []byte(hex.EncodeToString(secret)+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("keeping the secret of the PostgreSQL cluster: %w", err)
		}
		return secret, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the secret of the PostgreSQL cluster: %w", err)
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) == 0 {
		return nil, fmt.Errorf("%s is damaged: run make clean to begin anew", path)
	}
	return secret, nil
}

// initialise makes the cluster beside its final place, so that one that was interrupted is never taken for whole.
func (c cluster) initialise(ctx context.Context, fast bool) error {
	fresh := filepath.Join(c.folder, "initdb")
	passwordFile := filepath.Join(c.folder, "initdb-password")
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("making the PostgreSQL cluster: %w", err)
	}
	if err := os.WriteFile(passwordFile, []byte(rolePassword(c.secret, Superuser)+"\n"), 0o600); err != nil {
		return fmt.Errorf("making the PostgreSQL cluster: %w", err)
	}
	if c.user != nil {
		if err := os.Chown(passwordFile, int(c.user.Uid), int(c.user.Gid)); err != nil {
			return fmt.Errorf("making the PostgreSQL cluster: %w", err)
		}
	}
	args := []string{
		"-D", fresh, "--username=" + Superuser, "--auth=scram-sha-256", "--pwfile=" + passwordFile,
		"--encoding=UTF8", "--locale=C", "--lc-ctype=" + lcCtype, "--no-instructions",
	}
	if fast {
		args = append(args, "--no-sync")
	}
	out, err := c.command(ctx, c.folder, "initdb", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("making the PostgreSQL cluster: initdb: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := errors.Join(os.Remove(passwordFile), os.Rename(fresh, c.data())); err != nil {
		return fmt.Errorf("making the PostgreSQL cluster: %w", err)
	}
	return nil
}

// checkMajor tells of an upgrade of PostgreSQL before the server does so in its log.
func (c cluster) checkMajor(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("reading the version of the PostgreSQL cluster: %w", err)
	}
	made := strings.TrimSpace(string(text))
	installed, err := majorVersion(ctx, c.bin)
	if err != nil {
		return err
	}
	if made != strconv.Itoa(installed) {
		return fmt.Errorf("the cluster in %s was made by PostgreSQL %s and %d is installed: run make clean to begin anew, or put %s first on PATH", c.data(), made, installed, made)
	}
	return nil
}

// RemovePostgres stops what is left running of the cluster of dir, and removes dir and the folder outside it. It refuses
// while a live process runs the cluster. Removing what isn't there does nothing.
func RemovePostgres(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("removing the PostgreSQL cluster: %w", err)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := lockCluster(dir)
	if err != nil {
		return err
	}
	return errors.Join(removeLocked(ctx, dir), unlockFile(lock))
}

func removeLocked(ctx context.Context, dir string) error {
	if err := removeCluster(ctx, filepath.Join(dir, clusterDir)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, locationFile)); err == nil {
		if err := removeCluster(ctx, outsideDir(dir)); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the PostgreSQL cluster: %w", err)
	}
	return nil
}

func removeCluster(ctx context.Context, folder string) error {
	if err := stopOrphans(ctx, filepath.Join(folder, dataDir)); err != nil {
		return err
	}
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("removing the PostgreSQL cluster: %w", err)
	}
	return nil
}
