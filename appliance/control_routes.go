package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A route is one request that the control socket answers.
type route struct {
	pattern string // of http.ServeMux: a method and a path
	needs   access
	// body is how many octets a request may bring.
	body int64
	// within bounds the request and its answer; 0 stands for controlTime, unbounded for
	// as long as the client stays.
	within time.Duration
	// serve answers, or returns the error that is to be the answer. The request's context
	// ends with its time.
	serve func(http.ResponseWriter, *http.Request) error
	// stream answers in its place by a stream, which within bounds until it has begun.
	stream func(*stream, *http.Request) error
}

// unbounded is the time of a route that takes over the connection.
const unbounded time.Duration = -1

// routes are all requests. Package appliance/client documents them.
func (a *Appliance) routes(down func()) []route {
	metrics := a.metricsHandler()
	return []route{
		{pattern: "GET /metrics", needs: mayRead, serve: func(w http.ResponseWriter, r *http.Request) error {
			metrics.ServeHTTP(w, r)
			return nil
		}},
		{pattern: "GET /v1/status", needs: mayRead, serve: a.serveStatus},
		{pattern: "POST /v1/down", needs: mayChange, serve: func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusAccepted)
			down()
			return nil
		}},
		{pattern: "POST /v1/tap", needs: mayChange, body: 1 << 12, serve: a.serveTap},
		{pattern: "POST /v1/explain", needs: mayRead, body: maxQuestion, serve: a.serveExplain},
		{pattern: "GET /v1/keys", needs: mayRead, serve: a.serveKeys},
		{pattern: "POST /v1/keys", needs: mayChange, body: 1 << 18, serve: a.serveKeyChange},
		{pattern: "POST /v1/keys/values", needs: mayOwn, serve: a.serveKeyValues},
		{pattern: "POST /v1/keys/wireshark", needs: mayOwn, stream: a.serveKeyLog},
		{pattern: "POST /v1/capture", needs: mayChange, body: maxFilterRequest, stream: a.serveCapture},
		{pattern: "PUT /v1/neighbors/{address}", needs: mayChange, body: 1 << 10, serve: a.serveAddNeighbor},
		{pattern: "DELETE /v1/neighbors/{address}", needs: mayChange, serve: a.serveDeleteNeighbor},
		{pattern: "DELETE /v1/neighbors", needs: mayChange, serve: a.serveFlushNeighbors},
		{pattern: "POST /v1/apply", needs: mayChange, body: maxApply, within: applyTime, serve: a.serveApply},
		{pattern: "GET /v1/trace-levels", needs: mayRead, serve: a.serveTraceLevels},
		{pattern: "POST /v1/trace-levels", needs: mayChange, body: 1 << 10, serve: a.serveTraceLevel},
		{pattern: "GET /v1/events", needs: mayRead, stream: a.streamEvents},
		{pattern: "POST /v1/trace", needs: mayChange, body: 1 << 12, stream: a.streamTrace},
		{pattern: "POST /v1/takeover", needs: mayOwn, within: unbounded, serve: a.serveTakeover},
	}
}

func (a *Appliance) serveStatus(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, a.Status())
}

// What a ControlError is about, beside the HTTP status.
const (
	CodeBadRequest = "bad_request" // the request does not say what can be done
	CodeForbidden  = "forbidden"   // the process that asks may not
	CodeNotFound   = "not_found"   // no such request in this version, or no such thing
	CodeMethod     = "method"      // another method is meant
	CodeTooLarge   = "too_large"
	CodeBusy       = "busy"   // too many ask
	CodeFailed     = "failed" // it was tried
	CodeClear      = "clear"  // matches ErrClear
	CodeNoTaps     = "no_taps"
	CodeKey        = "key" // matches ErrKey
	CodeNoNeighbor = "no_neighbor"
)

// A ControlError is how the control socket says no: a JSON object beside an HTTP status
// that is no success.
type ControlError struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"error"`
}

func (e *ControlError) Error() string { return e.Message }

// Is says whether target is the error of package appliance that the code stands for.
func (e *ControlError) Is(target error) bool {
	switch e.Code {
	case CodeClear:
		return target == ErrClear
	case CodeNoTaps:
		return target == ErrNoTaps
	case CodeKey:
		return target == ErrKey
	case CodeNoNeighbor:
		return target == ErrNoNeighbor
	}
	return false
}

func badRequest(format string, args ...any) error {
	return &ControlError{Status: http.StatusBadRequest, Code: CodeBadRequest, Message: fmt.Sprintf(format, args...)}
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // who asked may have gone
	return nil
}

// requested reads the one JSON object that a request brings.
func requested[T any](r *http.Request) (v T, err error) {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, requestError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, badRequest("expected one JSON object, found more after it")
	}
	return v, nil
}

func requestError(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge(large.Limit)
	case errors.Is(err, io.EOF):
		return badRequest("expected a JSON object, found nothing")
	}
	return badRequest("expected a JSON object that the request knows: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func tooLarge(limit int64) error {
	return &ControlError{Status: http.StatusRequestEntityTooLarge, Code: CodeTooLarge,
		Message: fmt.Sprintf("expected at most %d octets in the request", limit)}
}

// handler is all that the socket answers.
func (c *control) handler(routes []route) http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string][]string) // by path
	for _, r := range routes {
		mux.Handle(r.pattern, c.guard(r))
		method, path, _ := strings.Cut(r.pattern, " ")
		methods[path] = append(methods[path], method)
	}
	for path, list := range methods {
		allow := strings.Join(list, ", ")
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			refuse(w, &ControlError{Status: http.StatusMethodNotAllowed, Code: CodeMethod, Message: fmt.Sprintf("%s wants %s, not %s", r.URL.Path, allow, r.Method)})
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, &ControlError{Status: http.StatusNotFound, Code: CodeNotFound, Message: fmt.Sprintf("this version of bitw has no request %.100q", r.URL.Path)})
	})
	return mux
}

// guard has a route answer only those who may, within its bounds.
func (c *control) guard(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := r.Context().Value(peerKey{}).(peer)
		has := c.allowed.of(p)
		if has < rt.needs {
			refuse(w, &ControlError{Status: http.StatusForbidden, Code: CodeForbidden,
				Message: fmt.Sprintf("user %d may %s here, and this takes %s; ask as root, or see control_group and control_admin_group in the configuration", p.uid, has.has(), rt.needs.needs())})
			return
		}
		if has == mayRead {
			defer c.readers.Add(-1)
			if c.readers.Add(1) > controlReaders {
				refuse(w, &ControlError{Status: http.StatusServiceUnavailable, Code: CodeBusy, Message: fmt.Sprintf("%d requests are being answered already; ask again later", controlReaders)})
				return
			}
		}
		if r.ContentLength > rt.body {
			refuse(w, tooLarge(rt.body))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, rt.body)
		within, rc := rt.within, http.NewResponseController(w)
		if within == 0 {
			within = controlTime
		}
		var end time.Time
		if within != unbounded {
			end = time.Now().Add(within)
		}
		_ = rc.SetReadDeadline(end)
		_ = rc.SetWriteDeadline(end)
		var err error
		switch {
		case rt.stream != nil:
			err = c.streamTo(w, r, has, rt.stream)
		case within == unbounded:
			err = rt.serve(w, r)
		default:
			ctx, cancel := context.WithDeadline(r.Context(), end)
			defer cancel()
			err = rt.serve(w, r.WithContext(ctx))
		}
		if err != nil {
			refuse(w, err)
		}
	})
}

// has says in a sentence what a process may do, needs what something takes.
func (a access) has() string {
	return [...]string{noAccess: "do nothing", mayRead: "only read", mayChange: "change things", mayOwn: "do everything"}[a]
}

func (a access) needs() string {
	return [...]string{noAccess: "nothing", mayRead: "the right to read", mayChange: "the right to change things", mayOwn: "root or the user that bitw runs as"}[a]
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	var e *ControlError
	if !errors.As(err, &e) {
		e = &ControlError{Status: http.StatusInternalServerError, Code: CodeFailed, Message: err.Error()}
	}
	text, err := json.Marshal(e)
	if err != nil {
		text = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	_, _ = w.Write(append(text, '\n'))
}
