// Package temporalclient connects to Temporal the same way from every process: by the standard TEMPORAL_* settings, with
// the search attributes that the workflows set.
package temporalclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"

	"github.com/cura-health/ehr-sync/internal/fault"
)

// Client is a connection to one namespace of a Temporal server.
type Client struct {
	client.Client

	namespace string
}

// Namespace is the namespace that the client works in.
func (c *Client) Namespace() string {
	if c.namespace == "" {
		return client.DefaultNamespace
	}
	return c.namespace
}

// Dial connects by the TEMPORAL_* variables and the Temporal configuration file, where there is one. Each of more may
// change the options that come of them.
func Dial(ctx context.Context, logger *slog.Logger, more ...func(*client.Options)) (*Client, error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, fault.Wrap("connecting to Temporal", fault.Config, "the TEMPORAL_* settings can't be read", err).
			WithFix("Check them against the Temporal SDK's environment configuration")
	}
	options.Logger = log.NewStructuredLogger(logger)
	for _, change := range more {
		change(&options)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, fault.Wrap("connecting to Temporal", fault.Unavailable, "no answer from "+address(options), err).
			WithFix("Check TEMPORAL_ADDRESS and that the server runs")
	}
	return &Client{Client: c, namespace: options.Namespace}, nil
}

func address(options client.Options) string {
	if options.HostPort == "" {
		return client.DefaultHostPort
	}
	return options.HostPort
}

// EnsureSearchAttributes registers the attributes that are missing, where that is allowed (a development server, a
// self-hosted cluster). Where it isn't, as on Temporal Cloud, it says which command an administrator has to run.
func (c *Client) EnsureSearchAttributes(ctx context.Context, names []string) error {
	known, err := c.GetSearchAttributes(ctx) // works on every server, unlike its replacement
	if err == nil {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			_, ok := known.GetKeys()[name]
			return ok
		})
	}
	if len(names) == 0 {
		return nil
	}
	missing := map[string]enumspb.IndexedValueType{}
	for _, name := range names {
		missing[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		SearchAttributes: missing, Namespace: c.Namespace(),
	})
	var exists *serviceerror.AlreadyExists
	if err == nil || errors.As(err, &exists) {
		return nil
	}
	return fault.Wrap("registering search attributes", fault.Config, "the namespace lacks "+strings.Join(names, ", "), err).
		WithFix(fmt.Sprintf("Have an administrator run: temporal operator search-attribute create --namespace %s --type Keyword --name %s",
			c.Namespace(), strings.Join(names, " --type Keyword --name ")))
}
