package client

import (
	"context"
	"io/fs"
	"net/http"
	"path/filepath"

	"bitw/appliance"
	"bitw/config"
)

// NewApplyRequest reads the configuration at path and the key files that it names, with
// the rights of the caller. The errors are those of config.Load; the warnings are valid in
// either case.
func NewApplyRequest(path string) (*appliance.ApplyRequest, config.Warnings, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, err
	}
	req := &appliance.ApplyRequest{File: full, KeyFiles: make(map[string][]byte)}
	opt := appliance.ConfigOptions()
	opt.NoInterface = true // whether it needs one, the appliance knows
	opt.ReadFile = func(path string) ([]byte, fs.FileMode, error) {
		data, mode, err := config.ReadKeyFile(path)
		if err != nil {
			return nil, 0, err
		}
		full, err := filepath.Abs(path)
		if err != nil {
			return nil, 0, err
		}
		req.KeyFiles[full] = data
		return data, mode, nil
	}
	text, _, warnings, err := config.LoadText(path, opt)
	if err != nil {
		return nil, warnings, err
	}
	req.Text = string(text)
	return req, warnings, nil
}

// Apply has the appliance do what a configuration says, or with DryRun tell what that
// would change. Where there is a result, the error is that of its Err: then nothing was
// changed.
func (c *Client) Apply(ctx context.Context, req *appliance.ApplyRequest) (*appliance.ApplyResult, error) {
	var r appliance.ApplyResult
	if err := c.callWithin(ctx, applyTime, http.MethodPost, "/v1/apply", req, &r); err != nil {
		return nil, err
	}
	return &r, r.Err()
}
