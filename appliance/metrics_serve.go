package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of the metrics' server.
const (
	metricsConns    = 16
	metricsRequests = 4
	metricsRetry    = 200 * time.Millisecond // while a predecessor has the address
)

// metricsHandler answers with all metrics, in the format that the client prefers.
func (a *Appliance) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(a.Metrics())
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: metricsRequests, Timeout: controlTime, DisableCompression: true,
	})
}

// metricsServer serves metrics on a TCP address.
type metricsServer struct {
	server *http.Server
	stop   context.CancelFunc
	done   chan struct{}
}

// serveMetrics begins to serve on Config.Metrics. While a predecessor is being taken over
// from, which still has the address, it tries until it is free.
func (a *Appliance) serveMetrics(takeover bool) (*metricsServer, error) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.metricsHandler())
	ctx, stop := context.WithCancel(context.Background())
	m := &metricsServer{stop: stop, done: make(chan struct{})}
	listen := func() (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp", a.cfg.Metrics.String())
	}
	l, err := listen()
	if err != nil && !(takeover && errors.Is(err, syscall.EADDRINUSE)) {
		stop()
		return nil, a.cfg.ErrorAt("metrics", fmt.Sprintf("metrics cannot be served: %v", err), "name another address, or see who has it: ss -ltnp", err)
	}
	m.server = &http.Server{Handler: mux, ReadTimeout: controlTime, WriteTimeout: 2 * controlTime, IdleTimeout: time.Minute, MaxHeaderBytes: controlHeader}
	go func() {
		defer close(m.done)
		for l == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(metricsRetry):
			}
			if l, err = listen(); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
				a.log.WithError(err).Error("metrics are not served")
				return
			}
		}
		limited := limitConns(l, metricsConns)
		m.server.ConnState = limited.state
		if err := m.server.Serve(limited); !errors.Is(err, http.ErrServerClosed) {
			a.log.WithError(err).Error("metrics are not served any more")
		}
	}()
	return m, nil
}

// close ends the server. m may be nil.
func (m *metricsServer) close() {
	if m == nil {
		return
	}
	m.stop()
	_ = m.server.Close()
	<-m.done
}
