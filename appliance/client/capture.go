package client

import (
	"context"
	"net/http"

	"bitw/appliance"
)

// Capture asks for a capture: the stream is a file as package pcapng writes it. What is wrong
// with the request is an *appliance.ControlError.
func (c *Client) Capture(ctx context.Context, r appliance.CaptureRequest) (*Stream, error) {
	return c.stream(ctx, http.MethodPost, "/v1/capture", r)
}

// KeyLog asks for the keys of all SAs for ESP: the stream is Wireshark's table "esp_sa", a
// line for each SA, those that come later included. A line for version, addresses and SPI of
// a former one takes its place from then on, since the key was changed. Lines that begin with # tell of SAs into
// which Wireshark cannot look.
func (c *Client) KeyLog(ctx context.Context) (*Stream, error) {
	return c.stream(ctx, http.MethodPost, "/v1/keys/wireshark", nil)
}
