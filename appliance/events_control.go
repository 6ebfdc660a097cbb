package appliance

import (
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An EventsRequest says which events are wanted; it is the query of GET /v1/events.
type EventsRequest struct {
	// Last is how many of the events before now are told first, at most all that are kept,
	// and Since bounds how old they may be, 0 for any age.
	Last  int
	Since time.Duration
	// Once ends the answer after those.
	Once bool
}

// Query is the request as a query: last=20&since=10m0s&once=true.
func (q EventsRequest) Query() string {
	v := url.Values{}
	if q.Last != 0 {
		v.Set("last", strconv.Itoa(q.Last))
	}
	if q.Since != 0 {
		v.Set("since", q.Since.String())
	}
	if q.Once {
		v.Set("once", "true")
	}
	return v.Encode()
}

// eventsRequest reads a query.
func eventsRequest(v url.Values) (q EventsRequest, err error) {
	for name, list := range v {
		if len(list) != 1 {
			return q, badRequest("expected %.100q once", name)
		}
		switch name {
		case "last":
			q.Last, err = strconv.Atoi(list[0])
		case "since":
			q.Since, err = time.ParseDuration(list[0])
		case "once":
			q.Once, err = strconv.ParseBool(list[0])
		default:
			return q, badRequest("expected last, since or once, found %.100q", name)
		}
		if err != nil || q.Last < 0 || q.Since < 0 {
			return q, badRequest("expected last=N, since=DURATION such as 10m, or once=true, found %.100q", name+"="+list[0])
		}
	}
	return q, nil
}

// streamEvents answers GET /v1/events.
func (a *Appliance) streamEvents(s *stream, r *http.Request) error {
	q, err := eventsRequest(r.URL.Query())
	if err != nil {
		return err
	}
	oldest := time.Time{}
	if q.Since > 0 {
		oldest = time.Unix(0, a.opt.clock()).Add(-q.Since)
	}
	events := a.Subscribe(q.Last)
	defer events.Close()
	if err := s.begin("application/x-ndjson"); err != nil {
		return err
	}
	for {
		ev, ok := events.take()
		switch {
		case ok && !ev.Time.Before(oldest):
			if err := s.line(ev); err != nil {
				return err
			}
		case ok:
		case q.Once || s.ctx.Err() != nil:
			return nil
		default:
			select {
			case <-events.more:
			case <-s.Done():
			}
		}
	}
}
