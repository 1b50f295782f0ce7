package main

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/cura-health/ehr-sync/activities"
	"github.com/cura-health/ehr-sync/workflows"
)

// startDelivery starts the workflow of a queue, or wakes the one that runs.
func startDelivery(ctx context.Context, tc client.Client, in activities.DeliverInput) error {
	_, err := tc.SignalWithStartWorkflow(ctx, workflows.DeliveryID(in.Connection, in.Link), workflows.SignalOutboxReady, nil, client.StartWorkflowOptions{
		TaskQueue: workflows.QueueInteractive, StaticSummary: "Delivery to one patient's record",
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.AttributeOrg().ValueSet(string(in.Org)), workflows.AttributeConnection().ValueSet(string(in.Connection))),
	}, workflows.Delivery, in)
	if err != nil {
		return fmt.Errorf("starting a delivery: %w", err)
	}
	return nil
}
