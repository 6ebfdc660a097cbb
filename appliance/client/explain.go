package client

import (
	"context"
	"net/http"

	"bitw/appliance"
	"bitw/appliance/explain"
)

// Explain asks what would become of a packet that came now. Nothing changes by it; see
// appliance.Appliance.Explain.
func (c *Client) Explain(ctx context.Context, q appliance.Question) (*explain.Result, error) {
	r := new(explain.Result)
	if err := c.call(ctx, http.MethodPost, "/v1/explain", q, r); err != nil {
		return nil, err
	}
	return r, nil
}
