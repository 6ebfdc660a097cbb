package client

import (
	"context"
	"net/http"
	"net/netip"

	"bitw/appliance"
)

// AddNeighbor makes a static neighbour on the wire known; see Appliance.AddNeighbor.
func (c *Client) AddNeighbor(ctx context.Context, n appliance.Neighbor) error {
	body := struct {
		MAC appliance.MAC `json:"mac"`
	}{n.MAC}
	return c.call(ctx, http.MethodPut, "/v1/neighbors/"+n.Address.String(), body, nil)
}

// DeleteNeighbor forgets a neighbour, learned or static. The error matches
// appliance.ErrNoNeighbor if none is known with that address.
func (c *Client) DeleteNeighbor(ctx context.Context, a netip.Addr) error {
	return c.call(ctx, http.MethodDelete, "/v1/neighbors/"+a.String(), nil, nil)
}

// FlushNeighbors forgets all neighbours that were learned, and says how many.
func (c *Client) FlushNeighbors(ctx context.Context) (int, error) {
	var f appliance.Flushed
	err := c.call(ctx, http.MethodDelete, "/v1/neighbors", nil, &f)
	return f.Flushed, err
}
