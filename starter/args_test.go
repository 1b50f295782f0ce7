package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReorder(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ typed, read string }{
		"as urfave wants it":            {"starter onboard --watch main", "starter onboard --watch main"},
		"flags after the argument":      {"starter onboard main --pilot 3 --watch", "starter onboard --pilot 3 --watch main"},
		"a value with =":                {"starter onboard main --pilot=3", "starter onboard --pilot=3 main"},
		"a value that looks like one":   {"starter abort main --reason --watch", "starter abort --reason --watch main"},
		"a global flag at the end":      {"starter org list --output json", "starter --output json org list"},
		"a global flag in between":      {"starter org --as pat add x -o json", "starter --as pat -o json org add x"},
		"flags of two levels":           {"starter sandbox --seed 3 faults --clear", "starter sandbox --seed 3 faults --clear"},
		"standard input":                {"starter connection add --secret-file - --org a", "starter connection add --secret-file - --org a"},
		"help of a command":             {"starter onboard main --help", "starter onboard --help"},
		"help of a sub-command":         {"starter connection help add", "starter connection add --help"},
		"help first":                    {"starter help onboard", "starter onboard --help"},
		"a connection of that name":     {"starter test help", "starter test help"},
		"an unknown flag stays":         {"starter onboard main --foo", "starter onboard --foo main"},
		"an argument that has a hyphen": {"starter test -- -main", "starter test -- -main"},
		"a value that is missing":       {"starter onboard main --pilot", "starter onboard --pilot main"},
		"completion":                    {"starter onboard main --generate-bash-completion", "starter onboard main --generate-bash-completion"},
		"nothing":                       {"starter", "starter"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
			got, err := reorder(app, strings.Fields(tc.typed))
			require.NoError(t, err)
			require.Equal(t, tc.read, strings.Join(got, " "))
		})
	}
}

func TestListed(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"a", "b", "c"}, listed([]string{"a, b", "c,"}))
	require.Empty(t, listed([]string{",", ""}))
}
