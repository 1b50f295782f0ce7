// Package deploy holds what production is made of; its tests read the files as the tools that run them do.
package deploy_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func environment() types.Mapping {
	return types.Mapping{"CURA_VERSION": "0.1.0", "CURA_SECRETS": "/etc/cura-ehr-sync/secrets"}
}

func load(t *testing.T, env types.Mapping) (*types.Project, error) {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  root,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(root, "docker-compose.yml")}},
		Environment: env,
	}, func(o *loader.Options) { o.SetProjectName("cura-ehr-sync", true) })
}

func project(t *testing.T) *types.Project {
	t.Helper()
	p, err := load(t, environment())
	require.NoError(t, err)
	return p
}

func service(t *testing.T, name string) types.ServiceConfig {
	t.Helper()
	s, err := project(t).GetService(name)
	require.NoError(t, err)
	return s
}

func TestComposeServices(t *testing.T) {
	t.Parallel()
	names := slices.Sorted(maps.Keys(project(t).Services))
	require.Equal(t, []string{
		"migrate", "postgres", "temporal", "temporal-namespace", "temporal-schema", "temporal-ui", "worker",
	}, names)
}

func TestComposeImages(t *testing.T) {
	t.Parallel()
	for name, s := range project(t).Services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NotEmpty(t, s.Image)
			_, tag, ok := strings.Cut(s.Image, ":")
			require.True(t, ok, "an image without a tag is whatever is newest")
			require.NotEqual(t, "latest", tag)
			if s.Build == nil {
				return
			}
			require.FileExists(t, filepath.Join(s.Build.Context, s.Build.Dockerfile))
		})
	}
}

func TestComposeOrder(t *testing.T) {
	t.Parallel()
	p := project(t)
	for name, s := range p.Services {
		for on, dependency := range s.DependsOn {
			target, err := p.GetService(on)
			require.NoError(t, err, "%s waits for %s", name, on)
			switch dependency.Condition {
			case types.ServiceConditionHealthy:
				require.NotNil(t, target.HealthCheck, "%s waits for the health of %s", name, on)
			case types.ServiceConditionCompletedSuccessfully:
				require.True(t, strings.HasPrefix(target.Restart, "on-failure:"), "%s waits for the end of %s, which must not start again after it", name, on)
			default:
				require.Failf(t, "condition", "%s waits for %s to be %q", name, on, dependency.Condition)
			}
		}
	}
	worker, err := p.GetService("worker")
	require.NoError(t, err)
	require.Equal(t, types.ServiceConditionCompletedSuccessfully, worker.DependsOn["migrate"].Condition, "the worker never meets an old schema")
}

func TestComposeServersStayUpAndAreWatched(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"postgres", "temporal", "worker"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := service(t, name)
			require.Equal(t, types.RestartPolicyUnlessStopped, s.Restart)
			require.NotNil(t, s.HealthCheck)
		})
	}
}

// What is missing stops the start with a sentence; nothing falls back to a value that everybody knows.
func TestComposeAsksForWhatItNeeds(t *testing.T) {
	t.Parallel()
	for name := range environment() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := environment()
			delete(env, name)
			_, err := load(t, env)
			require.ErrorContains(t, err, name)
		})
	}
}

func TestComposeHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	p := project(t)
	secret := regexp.MustCompile(`(?i)password|passwd|pwd|secret|token|_key$`)
	for name, s := range p.Services {
		for variable, value := range s.Environment {
			if secret.MatchString(variable) {
				require.NotNil(t, value, "%s: %s", name, variable)
				require.True(t, strings.HasPrefix(*value, "/run/secrets/"), "%s: %s must name a file", name, variable)
			}
		}
		for _, text := range append(slices.Clone([]string(s.Command)), environmentValues(s)...) {
			require.NotRegexp(t, `postgres://[^@/]*:[^@/]*@`, text, "%s: a URL with a password", name)
		}
		for _, used := range s.Secrets {
			require.Contains(t, p.Secrets, used.Source, name)
		}
	}
	for name, s := range p.Secrets {
		require.Equal(t, filepath.Join(environment()["CURA_SECRETS"], name), s.File)
		require.Empty(t, s.Content)
	}
}

func environmentValues(s types.ServiceConfig) []string {
	var values []string
	for _, v := range s.Environment {
		if v != nil {
			values = append(values, *v)
		}
	}
	return values
}

// deploy/secrets.sh makes every secret but the key, for which it asks.
func TestComposeSecretsAreMade(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("secrets.sh")
	require.NoError(t, err)
	for name := range project(t).Secrets {
		require.Contains(t, string(script), name)
	}
}

func TestComposeOwnContainersAreConfined(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"worker", "migrate"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := service(t, name)
			require.Equal(t, "65532:65532", s.User)
			require.True(t, s.ReadOnly)
			require.Equal(t, []string{"ALL"}, s.CapDrop)
			require.Contains(t, s.SecurityOpt, "no-new-privileges:true")
			require.False(t, s.Privileged)
		})
	}
}

func TestComposeNetworks(t *testing.T) {
	t.Parallel()
	p := project(t)
	require.True(t, p.Networks["database"].Internal)
	require.True(t, p.Networks["temporal"].Internal)
	for name, s := range p.Services {
		require.NotEmpty(t, s.Networks, name)
		for _, port := range s.Ports {
			require.Equal(t, "temporal-ui", name, "only the Web UI is published")
			require.Equal(t, "127.0.0.1", port.HostIP, "and to this host alone")
		}
	}
	for _, name := range []string{"postgres", "temporal", "migrate"} {
		require.NotContains(t, p.Services[name].Networks, "outside")
	}
	require.Contains(t, p.Services["worker"].Networks, "outside", "the worker reaches the EHRs")
}

func TestComposeMountsFilesThatExist(t *testing.T) {
	t.Parallel()
	p := project(t)
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				require.FileExists(t, v.Source, name)
				require.True(t, v.ReadOnly, name)
				continue
			}
			require.Contains(t, p.Volumes, v.Source, name)
		}
	}
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	stages := strings.Split(string(text), "\nFROM ")
	last := stages[len(stages)-1]
	require.True(t, strings.HasPrefix(last, "scratch\n"), "the image holds no shell and no packages")
	require.Contains(t, last, "\nUSER 65532:65532\n")
	require.Contains(t, last, "ca-certificates.crt")
	require.Contains(t, string(text), "CGO_ENABLED=0")
	require.NotRegexp(t, `(?m)^(FROM \S+:latest|FROM [^:\s]+$|ADD )`, strings.ReplaceAll(string(text), "FROM scratch", ""))
}

func TestDynamicConfig(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("temporal/dynamicconfig.yaml")
	require.NoError(t, err)
	var settings map[string][]struct {
		Value any `yaml:"value"`
	}
	require.NoError(t, yaml.Unmarshal(text, &settings))
	for key, values := range settings {
		require.Regexp(t, `^[a-z]+(\.[a-zA-Z]+)+$`, key)
		require.Len(t, values, 1)
		require.NotNil(t, values[0].Value, key)
	}
}
