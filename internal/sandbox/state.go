package sandbox

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// changeLog keeps what was changed after the start, one JSON object a line, so that the next start finds it again.
// A nil changeLog keeps nothing. Appends must not run at the same time.
type changeLog struct {
	file *os.File
}

// logLine is a change as it is kept. Put holds the resource with its final meta.
type logLine struct {
	Put     json.RawMessage `json:"put,omitempty"`
	Written bool            `json:"written,omitempty"` // put by a client, through the API
	Held    bool            `json:"held,omitempty"`    // put, but kept for sign-off
	File    string          `json:"file,omitempty"`    // "Type/id" of a held one that is filed
	Delete  string          `json:"delete,omitempty"`  // "Type/id"
	At      string          `json:"at,omitempty"`      // instant of a deletion or a filing
}

// openChangeLog replays the changes kept in dir over the store and opens the log for more. A last line that was torn
// by a crash is cut off; a broken line before it is an error.
func openChangeLog(dir string, s *store) (*changeLog, error) {
	path := filepath.Join(dir, "changes.ndjson")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the sandbox's changes: %w", err)
	}
	good, err := replay(file, s)
	if err == nil {
		err = file.Truncate(good)
	}
	if err == nil {
		_, err = file.Seek(good, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("replaying changes.ndjson of the sandbox's state folder: %w", err), file.Close())
	}
	return &changeLog{file: file}, nil
}

// replay applies the lines of a change log and gives the offset behind the last good one.
func replay(r io.Reader, s *store) (good int64, err error) {
	lines := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return good, nil // what stands before the end without a newline was torn
		}
		if err != nil {
			return good, err
		}
		if err := s.apply(line); err != nil {
			return good, fmt.Errorf("line %d: %w; delete the file to start without these changes", n, err)
		}
		good += int64(len(line))
	}
}

func (s *store) apply(line []byte) error {
	var l logLine
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("reading a change: %w", err)
	}
	if l.Delete != "" || l.File != "" {
		at, err := time.Parse(time.RFC3339Nano, l.At)
		if err != nil {
			return fmt.Errorf("reading a change: %w", errDate)
		}
		if l.File != "" {
			return s.fileAt(l.File, at)
		}
		typ, id, _ := strings.Cut(l.Delete, "/")
		// The base data may have changed since: what is gone already needs no deletion.
		if _, _, err := s.remove(typ, id, at); err != nil && !errors.Is(err, errNotFound) {
			return err
		}
		return nil
	}
	h, err := readHeader(l.Put)
	if err != nil {
		return err
	}
	v, err := s.prepare(h, l.Put)
	if err != nil {
		return err
	}
	v.written = l.Written
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.Held {
		s.held = append(s.held, heldWrite{h.typ, h.id, v})
		return nil
	}
	s.keep(h.typ, h.id, v, false)
	return nil
}

func (c *changeLog) append(l logLine) error {
	if c == nil {
		return nil
	}
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return fmt.Errorf("writing a change: %w", err)
	}
	if _, err := c.file.Write(line.Bytes()); err != nil {
		return fmt.Errorf("keeping a change in the sandbox's state folder: %w", err)
	}
	return nil
}

func (c *changeLog) close() error {
	if c == nil {
		return nil
	}
	return c.file.Close()
}

// stateFolder makes the folder under root that belongs to the base data, so that changes made to one data folder or
// seed are never replayed over another.
func stateFolder(root, base string) (string, error) {
	sum := sha256.Sum256([]byte(base))
	dir := filepath.Join(root, hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the sandbox's state folder: %w", err)
	}
	return dir, nil
}

// keptSecret reads the client secret kept in dir, or makes one; dir "" keeps nothing.
func keptSecret(dir string) (string, error) {
	if dir == "" {
		return randomText(), nil
	}
	path := filepath.Join(dir, "client-secret")
	kept, err := os.ReadFile(path)
	if secret := strings.TrimSpace(string(kept)); err == nil && secret != "" {
		return secret, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the sandbox's client secret: %w", err)
	}
	secret := randomText()
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keeping the sandbox's client secret: %w", err)
	}
	return secret, nil
}

// randomText is an unguessable token that is safe in a URL.
func randomText() string { return strings.ToLower(rand.Text()) }
