package appliance

import (
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"time"

	"bitw/config"
)

// An ApplyRequest is the body of POST /v1/apply: a configuration with all that it refers
// to. Whoever asks has read the files, with the rights of whoever asks; the appliance
// opens none of them, so that nobody can have it read what is not for him.
type ApplyRequest struct {
	// File is the absolute path of the configuration. It stands in errors, and the paths in
	// Text are relative to its folder.
	File string `json:"file"`
	Text string `json:"text"`
	// KeyFiles are the contents of the key files that Text names, by absolute path.
	KeyFiles map[string][]byte `json:"key_files,omitempty"`
	// DryRun only tells what would be done.
	DryRun bool `json:"dry_run,omitempty"`
}

// An ApplyResult answers an ApplyRequest. With errors, nothing was changed.
type ApplyResult struct {
	DryRun  bool          `json:"dry_run"`
	Changes []ApplyChange `json:"changes"`
	// Errors and Warnings are about the configuration, in the order of its lines.
	Errors   []ApplyNote `json:"errors,omitempty"`
	Warnings []ApplyNote `json:"warnings,omitempty"`
	// Error says why a configuration that is good in itself cannot be applied.
	Error string `json:"error,omitempty"`
}

// An ApplyChange is a config.Change.
type ApplyChange struct {
	// Kind is "added", "removed", "changed" or "moved"; Subject is such as "policy".
	Kind    string   `json:"kind"`
	Subject string   `json:"subject"`
	Name    string   `json:"name"`
	Fields  []string `json:"fields,omitempty"`
}

// String is as that of config.Change.
func (c ApplyChange) String() string {
	return config.Change{Kind: config.ChangeKind(c.Kind), Subject: config.Subject(c.Subject), Name: c.Name, Fields: c.Fields}.String()
}

// An ApplyNote is a config.Error; Line and Column are 0 where the whole file is meant.
type ApplyNote struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// Source is the line, with keys hidden.
	Source string `json:"source,omitempty"`
}

const (
	// maxApply bounds a request, in octets of JSON.
	maxApply = 32 << 20
	// applyTime bounds a request and its answer.
	applyTime = time.Minute
)

// serveApply answers POST /v1/apply. A configuration that cannot be applied is an answer,
// too.
func (a *Appliance) serveApply(w http.ResponseWriter, r *http.Request) error {
	req, err := requested[ApplyRequest](r)
	if err != nil {
		return err
	}
	defer func() {
		for _, k := range req.KeyFiles {
			clear(k)
		}
	}()
	if !filepath.IsAbs(req.File) {
		return badRequest("expected the absolute path of the configuration as file, found %.100q", req.File)
	}
	return answer(w, a.applyText(who(r.Context()), &req))
}

func (a *Appliance) applyText(by string, req *ApplyRequest) *ApplyResult {
	opt := ConfigOptions()
	opt.NoInterface = a.opt.host != nil
	opt.ReadFile = func(path string) ([]byte, fs.FileMode, error) {
		if data, ok := req.KeyFiles[path]; ok {
			return data, 0o600, nil // who has read it has seen to its mode
		}
		return nil, 0, fs.ErrNotExist
	}
	res := &ApplyResult{DryRun: req.DryRun, Changes: []ApplyChange{}}
	cfg, warnings, err := config.Parse(req.File, []byte(req.Text), opt)
	res.Warnings = applyNotes(warnings)
	if err != nil && !req.DryRun {
		a.refused(by, err)
	}
	if err == nil {
		var changes []config.Change
		changes, err = a.applyFor(by, *cfg, req.DryRun)
		for _, c := range changes {
			res.Changes = append(res.Changes, ApplyChange{string(c.Kind), string(c.Subject), c.Name, c.Fields})
		}
	}
	var errs config.Errors
	switch {
	case errors.As(err, &errs):
		res.Errors = applyNotes(errs)
	case err != nil:
		res.Error = err.Error()
	}
	return res
}

func applyNotes(list []*config.Error) []ApplyNote {
	var r []ApplyNote
	for _, e := range list {
		r = append(r, ApplyNote{e.File, e.Line, e.Column, e.Msg, e.Hint, e.Source})
	}
	return r
}

// Err returns what is wrong, as config.Load would, or nil.
func (r *ApplyResult) Err() error {
	var errs config.Errors
	for _, n := range r.Errors {
		errs = append(errs, &config.Error{File: n.File, Line: n.Line, Column: n.Column, Msg: n.Message, Hint: n.Hint, Source: n.Source})
	}
	switch {
	case len(errs) > 0:
		return errs
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}
