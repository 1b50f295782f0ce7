package config

import (
	"os"
	"strings"
)

// UseFile takes settings from a file of NAME=VALUE lines, when the environment names no database of its own: that is
// how a command finds the stack which `starter dev` runs in the same folder. Variables that are set already win; a file
// that isn't there changes nothing.
func UseFile(path string) {
	if os.Getenv("CURA_DATABASE_URL") != "" {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if _, set := os.LookupEnv(name); ok && !set {
			_ = os.Setenv(name, value) // it fails for a malformed name alone, and then the setting is missing and asked for
		}
	}
}
