package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParsePatientIDs(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		ids  []string
		says string
	}{
		"one a line":        {"# chosen by the hospital\n\nabc-1\n def.2 # a comment\r\n", []string{"abc-1", "def.2"}, ""},
		"a byte order mark": {"\uFEFFabc-1\n", []string{"abc-1"}, ""},
		"none":              {"# nobody\n\n", nil, "names no patient"},
		"two in a line":     {"ok\nabc def\n", nil, "line 2 isn't the id"},
		"a reference":       {"Patient/abc\n", nil, "without Patient/"},
		"the same twice":    {"abc-1\ndef\nabc-1\n", nil, "lines 1 and 3 name"},
		"too long an id":    {strings.Repeat("x", 100_000), nil, "line 1 isn't the id"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ids, err := parsePatientIDs("patients.txt", []byte(tc.text))
			if tc.says == "" {
				require.NoError(t, err)
				require.Equal(t, tc.ids, ids)
				return
			}
			require.ErrorAs(t, err, new(*usageError))
			require.ErrorContains(t, err, tc.says)
			require.NotContains(t, err.Error(), "abc", "the ids of patients stay out of error texts")
		})
	}
}
