package seal_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cura-health/ehr-sync/internal/audit/seal"
	"github.com/cura-health/ehr-sync/internal/cura"
	"github.com/cura-health/ehr-sync/internal/fault"
)

func TestHeadsAreAppendedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m, folder, path := sealedLog(t, key, 3, 1, 2)
	last, err := folder.Last(orgA, key.Verifiers())
	require.NoError(t, err)
	require.EqualValues(t, 2, last.Size)
	require.Equal(t, "cura-ehr-sync audit "+string(orgA)+"\n2\n"+last.Root.String()+"\n2023-11-14T22:13:20Z\n", last.Text())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())

	require.True(t, fault.Is(folder.Append(orgA, seal.SignedHead{}, m.head(t, key)), fault.Conflict), "somebody else has appended")
	orgs, err := folder.Orgs()
	require.NoError(t, err)
	require.Equal(t, []cura.OrgID{orgA}, orgs)
	none, err := folder.Last(orgB, key.Verifiers())
	require.NoError(t, err)
	require.Zero(t, none.Size)
}

// TestOfManyThatAppendOneDoes: the file is compared and written under one lock.
func TestOfManyThatAppendOneDoes(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m, folder, path := sealedLog(t, key, 3, 1)
	last, err := folder.Last(orgA, key.Verifiers())
	require.NoError(t, err)
	next := m.head(t, key)
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = folder.Append(orgA, last, next) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		require.True(t, fault.Is(err, fault.Conflict), err)
	}
	require.Equal(t, 1, won)
	require.Equal(t, 2, strings.Count(read(t, path), "cura-ehr-sync audit "))
}

func TestAFileOfSomethingElseIsLeftAlone(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	m, folder, path := sealedLog(t, key, 3, 1)
	text := strings.Repeat("not a head\n", 10_000)
	write(t, path, text)
	_, err := folder.Last(orgA, key.Verifiers())
	require.ErrorContains(t, err, "doesn't end with a head")
	require.Error(t, folder.Append(orgA, seal.SignedHead{}, m.head(t, key)))
	require.Equal(t, text, read(t, path))
}

func TestFoldersThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	_, err := seal.OpenFolder(file)
	require.ErrorContains(t, err, "isn't a folder")
	_, err = seal.OpenFolder(file + "-none")
	require.ErrorContains(t, err, "no such file")
	_, err = seal.MakeFolder(file)
	require.ErrorContains(t, err, "making the folder")
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	verifier, err := seal.GenerateKeyFile(file)
	require.NoError(t, err)
	private := read(t, file)
	require.True(t, strings.HasPrefix(verifier, "cura-ehr-sync-audit+"))
	require.NotContains(t, private, verifier)

	_, err = seal.GenerateKeyFile(file)
	require.ErrorContains(t, err, "exists already")
	require.Equal(t, private, read(t, file))

	for name, tc := range map[string]struct {
		text string
		mode os.FileMode
		says string
	}{
		"read by the group":   {private, 0o640, "chmod 600"},
		"read by everybody":   {private, 0o604, "chmod 600"},
		"empty":               {"", 0o600, "isn't a signing key"},
		"a verifier key":      {verifier, 0o600, "isn't a signing key"},
		"cut short":           {private[:len(private)-8], 0o600, "isn't a signing key"},
		"another second line": {private + "hush\n", 0o600, "key 2 of 2 isn't a verifier key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "key")
			require.NoError(t, os.WriteFile(path, []byte(tc.text), 0o600))
			require.NoError(t, os.Chmod(path, tc.mode))
			_, err := seal.OpenKeyFile(path)
			require.ErrorContains(t, err, tc.says)
			require.NotContains(t, err.Error(), "PRIVATE")
			require.NotContains(t, err.Error(), "hush")
		})
	}
	_, err = seal.OpenKeyFile(file + "-none")
	require.ErrorContains(t, err, "starter audit keygen")
	_, err = seal.ParseVerifiers("x")
	require.ErrorContains(t, err, "isn't a verifier key")
}

// TestAKeyIsChanged: heads of the key before are believed while its verifier key is in the file.
func TestAKeyIsChanged(t *testing.T) {
	t.Parallel()
	old := newKey(t)
	m, folder, _ := sealedLog(t, old, 5, 5)
	file := filepath.Join(t.TempDir(), "key")
	_, err := seal.GenerateKeyFile(file)
	require.NoError(t, err)
	next, err := seal.OpenKeyFile(file)
	require.NoError(t, err)
	_, err = folder.Last(orgA, next.Verifiers())
	require.ErrorContains(t, err, "none of the keys given has signed it")

	write(t, file, read(t, file)+old.Verifier()+"\n")
	next, err = seal.OpenKeyFile(file)
	require.NoError(t, err)
	last, err := folder.Last(orgA, next.Verifiers())
	require.NoError(t, err)
	m.append(record(6))
	require.NoError(t, folder.Append(orgA, last, m.head(t, next)))
	got, err := check(t, m, folder, next.Verifiers())
	require.NoError(t, err)
	require.Nil(t, got.Bad)
	require.Equal(t, 2, got.Heads)
}
