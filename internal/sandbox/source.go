package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Source writes what is live in the source now as NDJSON, by type and within a type in the order in which it came: the
// resources as they are served, under the ids under which they are served, the malformed and the poisoned ones too. A
// late write is there once it is seen, and what clients have written where its type is one that is pulled. It is the truth that comparisons use. It fails when w does.
func (s *Server) Source(w io.Writer) error {
	f := s.faults.get()
	out := bufio.NewWriterSize(w, 1<<16)
	for _, typ := range s.servedTypes() {
		rendered := s.rendering(f, typ)
		pulled := slices.Contains(coreTypes(), typ)
		for _, h := range s.store.find(search{typ: typ, match: func(e *entry, _ *version) bool { return pulled || !e.created() }}) {
			raw, err := rendered(h.entry.id, h.version)
			if err != nil {
				return err
			}
			if err := writeLine(out, raw); err != nil {
				return fmt.Errorf("writing the source: %w", err)
			}
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing the source: %w", err)
	}
	return nil
}

// writeLine writes JSON on one line: a resource of a data folder may be laid out over many.
func writeLine(out *bufio.Writer, raw []byte) error {
	if bytes.ContainsAny(raw, "\r\n") {
		var line bytes.Buffer
		if err := json.Compact(&line, raw); err != nil {
			return fmt.Errorf("compacting a resource: %w", err)
		}
		raw = line.Bytes()
	}
	if _, err := out.Write(raw); err != nil {
		return err
	}
	return out.WriteByte('\n')
}
